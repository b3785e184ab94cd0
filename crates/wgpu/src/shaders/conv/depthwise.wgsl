// Depthwise convolution: one input channel an output channel. A thread makes W channels of one output position.
struct Params {
    x_at: u32, weight_at: u32, bias_at: u32, residual_at: u32, out_at: u32, pad5: u32, pad6: u32, pad7: u32,
    // In units of W elements: outputs first .. end, channels.
    first: u32, end: u32, c: u32,
    kernel_h: u32, has_bias: u32, has_residual: u32, activation: u32, pad: u32,
    s: Shape,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> weight: array<S2>;
@group(0) @binding(3) var<storage, read> bias: array<S3>;
@group(0) @binding(4) var<storage, read> residual: array<S4>;
@group(0) @binding(5) var<storage, read_write> out: array<S5>;

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
    let place = place_of(m, p.s.oh, p.s.ow);
    let y = place.y * i32(p.s.stride_y) - p.s.pad_y;
    let x0 = place.x * i32(p.s.stride_x) - p.s.pad_x;
    var sum = T(0.0);
    for (var ky = 0u; ky < p.kernel_h; ky++) {
        for (var kx = 0u; kx < p.s.kernel_w; kx++) {
            let at = pixel(
                place.image, y + i32(ky * p.s.dilation_y), x0 + i32(kx * p.s.dilation_x), c, p.s.h, p.s.w, p.c,
            );
            if (at != NOWHERE) {
                sum += T(x[at + p.x_at]) * T(weight[(ky * p.s.kernel_w + kx) * p.c + c + p.weight_at]);
            }
        }
    }
    if (p.has_bias != 0u) {
        sum += T(bias[c + p.bias_at]);
    }
    if (p.has_residual != 0u) {
        sum += T(residual[i + p.residual_at]);
    }
    out[i + p.out_at] = S5(activated(p.activation, sum));
}
