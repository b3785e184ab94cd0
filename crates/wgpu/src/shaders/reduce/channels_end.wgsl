// Second stage of channels' sums.
struct Params {
    parts_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    c: u32, chunks: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<S1>;
@group(0) @binding(2) var<storage, read_write> out: array<S2>;

@compute @workgroup_size(TREE)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let c = id.y * ids.x + id.x;
    if (c >= p.c) {
        return;
    }
    var sum = T(0.0);
    for (var chunk = t; chunk < p.chunks; chunk += TREE) {
        sum += T(parts[chunk * p.c + c]);
    }
    sum = tree_total(t, sum);
    if (t == 0u) {
        if (p.accumulate != 0u) {
            sum += T(out[c + p.out_at]);
        }
        out[c + p.out_at] = S2(sum);
    }
}
