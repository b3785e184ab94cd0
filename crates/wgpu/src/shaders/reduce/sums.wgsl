// Second stage of sums that are kept as many: adds the chunks of a partial sum up in their order.
struct Params {
    parts_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    len: u32, chunks: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<S1>;
@group(0) @binding(2) var<storage, read_write> out: array<S2>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    if (i >= p.len) {
        return;
    }
    var sum = T(0.0);
    for (var chunk = 0u; chunk < p.chunks; chunk++) {
        sum += T(parts[chunk * p.len + i]);
    }
    if (p.accumulate != 0u) {
        sum += T(out[i + p.out_at]);
    }
    out[i + p.out_at] = S2(sum);
}
