// Bytes of pictures to the numbers a network reads: byte · scale[c] + shift[c], channels reversed where told.
struct Params {
    bytes_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, c: u32, reversed: u32,
    scale: array<vec4<f32>, 1>,
    shift: array<vec4<f32>, 1>,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bytes: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<S2>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = p.first + linear(id, ids, t);
    if (i >= p.end) {
        return;
    }
    let position = i / p.c;
    let c = i - position * p.c;
    let from_c = select(c, p.c - 1u - c, p.reversed != 0u);
    let at = position * p.c + from_c;
    let byte = (bytes[at / 4u + p.bytes_at] >> (at % 4u * 8u)) & 255u;
    out[i + p.out_at] = S2(f32(byte) * p.scale[0][c] + p.shift[0][c]);
}
