// LAMB's first pass: the moments, and the squares of a layer's weights and of what they would move by, each thread's sum.
struct Params {
    grad_at: u32, param_at: u32, first_at: u32, second_at: u32, sums_at: u32, pad5: u32, pad6: u32, pad7: u32,
    first_i: u32, end: u32, beta1: f32, fresh1: f32, beta2: f32, fresh2: f32, eps: f32, weight_decay: f32,
    grow: f32, root: f32, lr: f32,
    // Threads, the first one's place in the sums, sums of one kind.
    threads: u32, start: u32, count: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<S1>;
@group(0) @binding(2) var<storage, read> param: array<S2>;
@group(0) @binding(3) var<storage, read_write> first: array<S3>;
@group(0) @binding(4) var<storage, read_write> second: array<S4>;
@group(0) @binding(5) var<storage, read_write> sums: array<E5>;

fn all(v: T) -> f32 {
#if VECTORS
    return v.x + v.y + v.z + v.w;
#else
    return v;
#end
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let thread = linear(id, ids, t);
    if (thread >= p.threads) {
        return;
    }
    var weights = T(0.0);
    var moves = T(0.0);
    for (var i = p.first_i + thread; i < p.end; i += p.threads) {
        let w = T(param[i + p.param_at]);
        let g = T(grad[i + p.grad_at]);
        let m = p.beta1 * T(first[i + p.first_at]) + p.fresh1 * g;
        let v = p.beta2 * T(second[i + p.second_at]) + p.fresh2 * g * g;
        first[i + p.first_at] = S3(m);
        second[i + p.second_at] = S4(v);
        let u = wanted(w, m, v);
        weights += w * w;
        moves += u * u;
    }
    sums[p.start + thread] = all(weights);
    sums[p.count + p.start + thread] = all(moves);
}
