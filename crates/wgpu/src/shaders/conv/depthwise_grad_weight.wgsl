// The gradient of a depthwise convolution's weights, first stage: a thread sums W channels of one row of taps over a chunk
// of output positions; `sums` adds the chunks up. KERNEL_W is how many taps a row has.
struct Params {
    x_at: u32, grad_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Output positions first .. end, those of a chunk, chunks; channels in units of W.
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
    kernel_h: u32, pad: u32,
    s: Shape,
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
    var place = place_of(start, p.s.oh, p.s.ow);
#for k 0 KERNEL_W
    var sum{k} = T(0.0);
#end
    for (var m = start; m < last; m++) {
        let y = place.y * i32(p.s.stride_y) + i32(ky * p.s.dilation_y) - p.s.pad_y;
        if (y >= 0 && y < i32(p.s.h)) {
            let g = T(grad[m * p.c + c + p.grad_at]);
            let row = (place.image * p.s.h + u32(y)) * p.s.w;
            let left = place.x * i32(p.s.stride_x) - p.s.pad_x;
#for k 0 KERNEL_W
            let x{k} = left + i32({k}u * p.s.dilation_x);
            if (x{k} >= 0 && x{k} < i32(p.s.w)) {
                sum{k} += g * T(x[(row + u32(x{k})) * p.c + c + p.x_at]);
            }
#end
        }
        place.x++;
        if (place.x == i32(p.s.ow)) {
            place.x = 0;
            place.y++;
            if (place.y == i32(p.s.oh)) {
                place.y = 0;
                place.image++;
            }
        }
    }
    let at = (p.chunk + chunk) * width * KERNEL_W + ky * KERNEL_W * p.c + c;
#for k 0 KERNEL_W
    out[at + {k}u * p.c] = S3(sum{k});
#end
}
