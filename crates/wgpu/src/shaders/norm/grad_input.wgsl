// Third stage: grad_in = weight · inv_std · (g - Σg / m - x̂ · Σ(g · x̂) / m); by running statistics weight · inv_std · g.
// What g passes is known from the activation's values, `y`; or, where `y` is the shift instead, from x̂.
struct Params {
    x_at: u32, weight_at: u32, mean_at: u32, spread_at: u32, grad_at: u32, y_at: u32, sums_at: u32, out_at: u32,
    first: u32, end: u32, c: u32, variances: u32, eps: f32, activation: u32, per_position: f32, accumulate: u32,
    has_shift: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> weight: array<S2>;
@group(0) @binding(3) var<storage, read> mean: array<S3>;
@group(0) @binding(4) var<storage, read> spread: array<S4>;
@group(0) @binding(5) var<storage, read> grad: array<S5>;
@group(0) @binding(6) var<storage, read> y: array<S6>;
@group(0) @binding(7) var<storage, read> sums: array<S7>;
@group(0) @binding(8) var<storage, read_write> out: array<S8>;

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
    let c = i % p.c;
    let scale = T(weight[c + p.weight_at]);
    var inv_std = T(spread[c + p.spread_at]);
    var normal = T(0.0);
    if (p.variances != 0u) {
        inv_std = T(1.0) / sqrt(inv_std + T(p.eps));
    } else {
        normal = (T(x[i + p.x_at]) - T(mean[c + p.mean_at])) * inv_std;
    }
    var g = T(grad[i + p.grad_at]);
    if (p.has_shift != 0u) {
        g = passed(p.activation, activated(p.activation, normal * scale + T(y[c + p.y_at])), g);
    } else if (p.activation != 0u) {
        g = passed(p.activation, T(y[i + p.y_at]), g);
    }
    if (p.variances == 0u) {
        g -= (T(sums[c + p.sums_at]) + normal * T(sums[p.c + c + p.sums_at])) * p.per_position;
    }
    g *= scale * inv_std;
    if (p.accumulate != 0u) {
        g += T(out[i + p.out_at]);
    }
    out[i + p.out_at] = S8(g);
}
