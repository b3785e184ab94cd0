// SGD with momentum, as PyTorch has it.
struct Params {
    grad_at: u32, param_at: u32, velocity_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, lr: f32, momentum: f32, weight_decay: f32, nesterov: u32, has_velocity: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<S1>;
@group(0) @binding(2) var<storage, read_write> param: array<S2>;
@group(0) @binding(3) var<storage, read_write> velocity: array<S3>;

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
    var g = T(grad[i + p.grad_at]) + p.weight_decay * old;
    if (p.has_velocity != 0u) {
        let v = p.momentum * T(velocity[i + p.velocity_at]) + g;
        velocity[i + p.velocity_at] = S3(v);
        if (p.nesterov != 0u) {
            g += p.momentum * v;
        } else {
            g = v;
        }
    }
    param[i + p.param_at] = S2(old - p.lr * g);
}
