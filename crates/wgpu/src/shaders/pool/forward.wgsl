// The largest value of each window (NaN wins), or the mean (AVERAGE).
@group(0) @binding(1) var<storage, read> x: array<S1>;
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
    let row = m / p.ow;
    let image = row / p.oh;
    let ys = covered_y(row - image * p.oh);
    let xs = covered_x(m - row * p.ow);
#if AVERAGE
    var y = T(0.0);
#else
    // The lowest number, by its bits: -infinity is not an expression that shaders may have.
    var y = T(bitcast<f32>(0xff7fffffu));
    var none = true;
#end
    for (var iy = ys.start; iy < ys.end; iy++) {
        for (var ix = xs.start; ix < xs.end; ix++) {
            let v = T(x[((image * p.h + iy) * p.w + ix) * p.c + c + p.at0]);
#if AVERAGE
            y += v;
#else
            if (none) {
                y = v;
                none = false;
            } else {
                y = select(y, v, larger(v, y));
            }
#end
        }
    }
#if AVERAGE
    y /= f32((ys.end - ys.start) * (xs.end - xs.start));
#end
    out[i + p.at1] = S2(y);
}
