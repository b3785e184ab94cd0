// Adam and AdamW, as PyTorch has them. `size` is lr / (1 - beta1^step), `root` the root of 1 - beta2^step.
struct Params {
    grad_at: u32, param_at: u32, first_at: u32, second_at: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first_i: u32, end: u32, beta1: f32, beta2: f32, eps: f32, weight_decay: f32, shrink: f32, size: f32, root: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<S1>;
@group(0) @binding(2) var<storage, read_write> param: array<S2>;
@group(0) @binding(3) var<storage, read_write> first: array<S3>;
@group(0) @binding(4) var<storage, read_write> second: array<S4>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = p.first_i + linear(id, ids, t);
    if (i >= p.end) {
        return;
    }
    var w = T(param[i + p.param_at]);
    let g = T(grad[i + p.grad_at]) + p.weight_decay * w;
    w *= p.shrink;
    let m = p.beta1 * T(first[i + p.first_at]) + (1.0 - p.beta1) * g;
    let v = p.beta2 * T(second[i + p.second_at]) + (1.0 - p.beta2) * g * g;
    first[i + p.first_at] = S3(m);
    second[i + p.second_at] = S4(v);
    param[i + p.param_at] = S2(w - p.size * m / (sqrt(v) / p.root + T(p.eps)));
}
