// The gradient of a largest value goes to the first of its window: each input position gathers from the windows over it.
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> grad: array<S2>;
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
    let y = row - image * p.h;
    let own_x = m - row * p.w;
    let oys = covering(y, p.h, p.oh, p.kernel_y, p.stride_y, p.pad_y);
    let oxs = covering(own_x, p.w, p.ow, p.kernel_x, p.stride_x, p.pad_x);
    let own = T(x[i + p.at0]);
    var sum = T(0.0);
    for (var oy = oys.start; oy < oys.end; oy++) {
        let ys = covered_y(oy);
        for (var ox = oxs.start; ox < oxs.end; ox++) {
            let xs = covered_x(ox);
            var g = T(grad[((image * p.oh + oy) * p.ow + ox) * p.c + c + p.at1]);
            for (var iy = ys.start; iy < ys.end; iy++) {
                for (var ix = xs.start; ix < xs.end; ix++) {
                    let v = T(x[((image * p.h + iy) * p.w + ix) * p.c + c + p.at0]);
                    // What comes before must be smaller, what comes after not larger.
                    if (iy < y || (iy == y && ix < own_x)) {
                        g = select(T(0.0), g, larger(own, v));
                    } else if (iy != y || ix != own_x) {
                        g = select(g, T(0.0), larger(v, own));
                    }
                }
            }
            sum += g;
        }
    }
    if (p.accumulate != 0u) {
        sum += T(out[i + p.at2]);
    }
    out[i + p.at2] = S3(sum);
}
