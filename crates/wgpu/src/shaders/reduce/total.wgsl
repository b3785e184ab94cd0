// Last stage of sums that become one number each: a workgroup adds `len` numbers up, for each of a few rows of them.
struct Params {
    parts_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    rows: u32, len: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<S1>;
@group(0) @binding(2) var<storage, read_write> out: array<S2>;

@compute @workgroup_size(TREE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    var sum = 0.0;
    for (var i = t; i < p.len; i += TREE) {
        sum += f32(parts[id.x * p.len + i + p.parts_at]);
    }
    sum = tree_sum(t, sum);
    if (t == 0u) {
        if (p.accumulate != 0u) {
            sum += f32(out[id.x + p.out_at]);
        }
        out[id.x + p.out_at] = S2(sum);
    }
}
