// out = activation((x - mean) * inv_std * weight + bias + residual). `spread` holds 1 / deviation, or variances.
struct Params {
    x_at: u32, weight_at: u32, bias_at: u32, mean_at: u32, spread_at: u32, residual_at: u32, out_at: u32, pad7: u32,
    first: u32, end: u32, c: u32, variances: u32, eps: f32, activation: u32, has_residual: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> weight: array<S2>;
@group(0) @binding(3) var<storage, read> bias: array<S3>;
@group(0) @binding(4) var<storage, read> mean: array<S4>;
@group(0) @binding(5) var<storage, read> spread: array<S5>;
@group(0) @binding(6) var<storage, read> residual: array<S6>;
@group(0) @binding(7) var<storage, read_write> out: array<S7>;

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
    var inv_std = T(spread[c + p.spread_at]);
    if (p.variances != 0u) {
        inv_std = T(1.0) / sqrt(inv_std + T(p.eps));
    }
    let normal = (T(x[i + p.x_at]) - T(mean[c + p.mean_at])) * inv_std;
    var y = normal * T(weight[c + p.weight_at]) + T(bias[c + p.bias_at]);
    if (p.has_residual != 0u) {
        y += T(residual[i + p.residual_at]);
    }
    out[i + p.out_at] = S7(activated(p.activation, y));
}
