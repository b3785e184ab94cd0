// RMSprop, as PyTorch has it: centred with `mean`, with momentum with `velocity`. `fresh` is 1 - alpha.
struct Params {
    grad_at: u32, param_at: u32, square_at: u32, velocity_at: u32, mean_at: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, lr: f32, alpha: f32, fresh: f32, eps: f32, momentum: f32, weight_decay: f32,
    has_velocity: u32, has_mean: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<S1>;
@group(0) @binding(2) var<storage, read_write> param: array<S2>;
@group(0) @binding(3) var<storage, read_write> square: array<S3>;
@group(0) @binding(4) var<storage, read_write> velocity: array<S4>;
@group(0) @binding(5) var<storage, read_write> mean: array<S5>;

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
    let old = T(param[i + p.param_at]);
    let g = T(grad[i + p.grad_at]) + p.weight_decay * old;
    let s = p.alpha * T(square[i + p.square_at]) + p.fresh * g * g;
    square[i + p.square_at] = S3(s);
    var spread = s;
    if (p.has_mean != 0u) {
        let m = p.alpha * T(mean[i + p.mean_at]) + p.fresh * g;
        mean[i + p.mean_at] = S5(m);
        spread = s - m * m;
        // Rounding can make it negative; NaN stays.
        spread = select(spread, T(0.0), spread < T(0.0));
    }
    var moved = g / (sqrt(spread) + T(p.eps));
    if (p.has_velocity != 0u) {
        moved += p.momentum * T(velocity[i + p.velocity_at]);
        velocity[i + p.velocity_at] = S4(moved);
    }
    param[i + p.param_at] = S2(old - p.lr * moved);
}
