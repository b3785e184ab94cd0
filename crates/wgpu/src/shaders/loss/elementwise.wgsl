// Losses of single outputs: a workgroup a row. Writes each row's loss and whether it is a hit; `total` adds them up.
struct Params {
    x_at: u32, targets_at: u32, weights_at: u32, rows_at: u32, grad_at: u32, pad5: u32, pad6: u32, pad7: u32,
    // `loss` is 0 for binary cross-entropy, 1 for the square, 2 for Huber's with its `delta`.
    n: u32, classes: u32, has_grad: u32, loss: u32, delta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> targets: array<S2>;
@group(0) @binding(3) var<storage, read> weights: array<S3>;
// [loss or hit, row]
@group(0) @binding(4) var<storage, read_write> rows: array<S4>;
@group(0) @binding(5) var<storage, read_write> grad: array<S5>;

// The loss and its derivative.
fn element(x: f32, t: f32) -> vec2<f32> {
    if (p.loss == 0u) {
        let small = exp(-abs(x));
        let sigmoid = select(1.0, small, x < 0.0) / (1.0 + small);
        return vec2(select(x, 0.0, x < 0.0) - x * t + log_above_one(small), sigmoid - t);
    }
    let off = x - t;
    if (p.loss == 1u) {
        return vec2(off * off, 2.0 * off);
    }
    if (abs(off) > p.delta) {
        return vec2(p.delta * (abs(off) - 0.5 * p.delta), p.delta * sign(off));
    }
    return vec2(0.5 * off * off, off);
}

@compute @workgroup_size(TREE)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let row = id.y * ids.x + id.x;
    if (row >= p.n) {
        return;
    }
    let start = row * p.classes;
    var loss = 0.0;
    var known = 0.0;
    var wrong = 0.0;
    for (var c = t; c < p.classes; c += TREE) {
        let w = f32(weights[start + c + p.weights_at]);
        var slope = 0.0;
        if (w != 0.0) {
            let value = f32(x[start + c + p.x_at]);
            let wanted = f32(targets[start + c + p.targets_at]);
            let both = element(value, wanted);
            loss += w * both.x;
            slope = w * both.y;
            known += 1.0;
            let right = select(value <= 0.0, value > 0.0, wanted > 0.5);
            wrong += select(1.0, 0.0, right);
        }
        if (p.has_grad != 0u) {
            grad[start + c + p.grad_at] = S5(slope);
        }
    }
    loss = tree_sum(t, loss);
    known = tree_sum(t, known);
    wrong = tree_sum(t, wrong);
    if (t == 0u) {
        rows[row + p.rows_at] = S4(loss);
        let hit = p.loss == 0u && known > 0.0 && wrong == 0.0;
        rows[p.n + row + p.rows_at] = S4(select(0.0, 1.0, hit));
    }
}
