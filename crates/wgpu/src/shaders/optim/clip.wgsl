// Limits a gradient in place, by the norm of all that is limited together or each value alone. NaN stays.
struct Params {
    squares_at: u32, x_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, norm: u32, most: f32, eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> squares: array<E1>;
@group(0) @binding(2) var<storage, read_write> x: array<S2>;

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
    var y = T(x[i + p.x_at]);
    if (p.norm != 0u) {
        let factor = p.most / (sqrt(squares[0]) + p.eps);
        y *= select(factor, 1.0, factor > 1.0);
    } else {
        y = select(y, T(p.most), y > T(p.most));
        y = select(y, T(-p.most), y < T(-p.most));
    }
    x[i + p.x_at] = S2(y);
}
