// LAMB's second pass: the step, scaled by the ratio of the norms of the layer's weights and of what they would move by.
struct Params {
    first_at: u32, second_at: u32, squares_at: u32, param_at: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first_i: u32, end: u32, beta1: f32, fresh1: f32, beta2: f32, fresh2: f32, eps: f32, weight_decay: f32,
    grow: f32, root: f32, lr: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> first: array<S1>;
@group(0) @binding(2) var<storage, read> second: array<S2>;
@group(0) @binding(3) var<storage, read> squares: array<E3>;
@group(0) @binding(4) var<storage, read_write> param: array<S4>;

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
    // 1 where a norm is 0 and where nothing decays.
    var ratio = 1.0;
    if (p.weight_decay != 0.0 && squares[0] != 0.0 && squares[1] != 0.0) {
        ratio = sqrt(squares[0]) / sqrt(squares[1]);
    }
    let old = T(param[i + p.param_at]);
    let u = wanted(old, T(first[i + p.first_at]), T(second[i + p.second_at]));
    param[i + p.param_at] = S4(old - p.lr * ratio * u);
}
