// A normalisation by running statistics folded into the weights and the bias of the convolution before it.
struct Params {
    weight_at: u32, scale_at: u32, shift_at: u32, mean_at: u32, var_at: u32, bias_at: u32, out_at: u32, out_bias_at: u32,
    len: u32, c: u32, eps: f32, has_bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weight: array<S1>;
@group(0) @binding(2) var<storage, read> scale: array<S2>;
@group(0) @binding(3) var<storage, read> shift: array<S3>;
@group(0) @binding(4) var<storage, read> mean: array<S4>;
@group(0) @binding(5) var<storage, read> variance: array<S5>;
@group(0) @binding(6) var<storage, read> bias: array<S6>;
@group(0) @binding(7) var<storage, read_write> out: array<S7>;
@group(0) @binding(8) var<storage, read_write> out_bias: array<S8>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    if (i >= p.len) {
        return;
    }
    let o = i % p.c;
    let s = T(scale[o + p.scale_at]) / sqrt(T(variance[o + p.var_at]) + T(p.eps));
    out[i + p.out_at] = S7(T(weight[i + p.weight_at]) * s);
    if (i < p.c) {
        var b = T(0.0);
        if (p.has_bias != 0u) {
            b = T(bias[o + p.bias_at]);
        }
        out_bias[o + p.out_bias_at] = S8(T(shift[o + p.shift_at]) + s * (b - T(mean[o + p.mean_at])));
    }
}
