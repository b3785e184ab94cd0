// The gradient of means: each input position gathers its share from the windows over it.
@group(0) @binding(1) var<storage, read> grad: array<S1>;
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
    let m = i / p.c;
    let c = i - m * p.c;
    let row = m / p.w;
    let image = row / p.h;
    let oys = covering(row - image * p.h, p.h, p.oh, p.kernel_y, p.stride_y, p.pad_y);
    let oxs = covering(m - row * p.w, p.w, p.ow, p.kernel_x, p.stride_x, p.pad_x);
    var sum = T(0.0);
    for (var oy = oys.start; oy < oys.end; oy++) {
        let ys = covered_y(oy);
        for (var ox = oxs.start; ox < oxs.end; ox++) {
            let xs = covered_x(ox);
            let count = f32((ys.end - ys.start) * (xs.end - xs.start));
            sum += T(grad[((image * p.oh + oy) * p.ow + ox) * p.c + c + p.at0]) / count;
        }
    }
    if (p.accumulate != 0u) {
        sum += T(out[i + p.at1]);
    }
    out[i + p.at1] = S2(sum);
}
