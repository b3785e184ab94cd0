// The gradient of a depthwise convolution's weights, first stage: a thread sums W channels of one row of taps over a chunk
// of output positions; `sums` adds the chunks up. KERNEL_W is how many taps a row has.
struct Params {
    x_at: u32, grad_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Output positions first .. end, those of a chunk, chunks; channels in units of W.
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
    h: u32, w: u32, oh: u32, ow: u32, kernel_h: u32,
    stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32, pad_y: i32, pad_x: i32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> grad: array<S2>;
@group(0) @binding(3) var<storage, read_write> out: array<S3>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    let width = p.c * p.kernel_h;
    let chunk = i / width;
    if (chunk >= p.chunks) {
        return;
    }
    let ky = (i - chunk * width) / p.c;
    let c = i % p.c;
    let start = p.first + chunk * p.rows;
    let last = min(start + p.rows, p.end);
    var ox = start % p.ow;
    var oy = start / p.ow % p.oh;
    var image = start / (p.ow * p.oh);
#for k 0 KERNEL_W
    var sum{k} = T(0.0);
#end
    for (var m = start; m < last; m++) {
        let y = i32(oy * p.stride_y + ky * p.dilation_y) - p.pad_y;
        if (y >= 0 && y < i32(p.h)) {
            let g = T(grad[m * p.c + c + p.grad_at]);
            let row = (image * p.h + u32(y)) * p.w;
            let left = i32(ox * p.stride_x) - p.pad_x;
#for k 0 KERNEL_W
            let x{k} = left + i32({k}u * p.dilation_x);
            if (x{k} >= 0 && x{k} < i32(p.w)) {
                sum{k} += g * T(x[(row + u32(x{k})) * p.c + c + p.x_at]);
            }
#end
        }
        ox++;
        if (ox == p.ow) {
            ox = 0u;
            oy++;
            if (oy == p.oh) {
                oy = 0u;
                image++;
            }
        }
    }
    let at = (p.chunk + chunk) * width * KERNEL_W + ky * KERNEL_W * p.c + c;
#for k 0 KERNEL_W
    out[at + {k}u * p.c] = S3(sum{k});
#end
}
