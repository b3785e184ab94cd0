// The gradient of a depthwise convolution's input: each input position gathers from the outputs that saw it.
struct Params {
    grad_at: u32, weight_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, c: u32,
    h: u32, w: u32, oh: u32, ow: u32, kernel_h: u32, kernel_w: u32,
    stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32, pad_y: i32, pad_x: i32,
    accumulate: u32,
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
    let row = m / p.w;
    let image = row / p.h;
    let y = i32(row - image * p.h) + p.pad_y;
    let x = i32(m - row * p.w) + p.pad_x;
    let stride_y = i32(p.stride_y);
    let stride_x = i32(p.stride_x);
    var sum = T(0.0);
    for (var ky = 0u; ky < p.kernel_h; ky++) {
        let ty = y - i32(ky * p.dilation_y);
        let oy = ty / stride_y;
        if (ty < 0 || oy * stride_y != ty || oy >= i32(p.oh)) {
            continue;
        }
        for (var kx = 0u; kx < p.kernel_w; kx++) {
            let tx = x - i32(kx * p.dilation_x);
            let ox = tx / stride_x;
            if (tx < 0 || ox * stride_x != tx || ox >= i32(p.ow)) {
                continue;
            }
            let at = ((image * p.oh + u32(oy)) * p.ow + u32(ox)) * p.c + c;
            sum += T(grad[at + p.grad_at]) * T(weight[(ky * p.kernel_w + kx) * p.c + c + p.weight_at]);
        }
    }
    if (p.accumulate != 0u) {
        sum += T(out[i + p.out_at]);
    }
    out[i + p.out_at] = S3(sum);
}
