// The gradient of a depthwise convolution's input: each input position gathers from the outputs that saw it.
struct Params {
    grad_at: u32, weight_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // In units of W elements: inputs first .. end, channels.
    first: u32, end: u32, c: u32,
    kernel_h: u32, accumulate: u32, pad8: u32, pad9: u32, pad10: u32,
    s: Shape,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<S1>;
@group(0) @binding(2) var<storage, read> weight: array<S2>;
@group(0) @binding(3) var<storage, read_write> out: array<S3>;

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
    let m = i / p.c;
    let c = i - m * p.c;
    let place = place_of(m, p.s.h, p.s.w);
    let stride_y = i32(p.s.stride_y);
    let stride_x = i32(p.s.stride_x);
    var sum = T(0.0);
    for (var ky = 0u; ky < p.kernel_h; ky++) {
        let y = place.y + p.s.pad_y - i32(ky * p.s.dilation_y);
        if (y % stride_y != 0) {
            continue;
        }
        for (var kx = 0u; kx < p.s.kernel_w; kx++) {
            let x = place.x + p.s.pad_x - i32(kx * p.s.dilation_x);
            if (x % stride_x != 0) {
                continue;
            }
            let at = pixel(place.image, y / stride_y, x / stride_x, c, p.s.oh, p.s.ow, p.c);
            if (at != NOWHERE) {
                sum += T(grad[at + p.grad_at]) * T(weight[(ky * p.s.kernel_w + kx) * p.c + c + p.weight_at]);
            }
        }
    }
    if (p.accumulate != 0u) {
        sum += T(out[i + p.out_at]);
    }
    out[i + p.out_at] = S3(sum);
}
