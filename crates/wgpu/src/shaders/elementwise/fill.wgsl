// Sets elements to one value.
struct Params {
    out_at: u32, pad1: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, value: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = p.first + linear(id, ids, t) * 4u;
    let at = (i + p.out_at) / 4u;
    if (i + 4u <= p.end) {
        // Bits, because a constant NaN is not an expression that shaders may have.
        out[at] = vec4<u32>(p.value);
    } else {
        for (var c = 0u; i + c < p.end; c++) {
            out[at][c] = p.value;
        }
    }
}
