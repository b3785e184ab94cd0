// Softmax cross-entropy and the focal loss: a workgroup a row. Writes each row's loss and whether it is a hit; `total` adds
// them up.
struct Params {
    logits_at: u32, targets_at: u32, rows_at: u32, grad_at: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    n: u32, classes: u32, has_grad: u32, gamma: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<S1>;
@group(0) @binding(2) var<storage, read> targets: array<S2>;
// [loss or hit, row]
@group(0) @binding(3) var<storage, read_write> rows: array<S3>;
@group(0) @binding(4) var<storage, read_write> grad: array<S4>;

// (1 - p)^gamma · log p and its derivative by log p.
fn focus(chance: f32, rest: f32, log_p: f32) -> vec2<f32> {
    if (p.gamma == 0.0) {
        return vec2(log_p, 1.0);
    }
    // What nothing is left of has no weight; `log p / (1 - p)` tends to -1 there.
    var power = 0.0;
    var ratio = -1.0;
    if (rest > 0.0) {
        power = pow(rest, p.gamma);
        ratio = log_p / rest;
    }
    // A probability of 0 has an infinite logarithm and no weight in the slope.
    var bend = 0.0;
    if (chance > 0.0) {
        bend = p.gamma * chance * ratio;
    }
    return vec2(power * log_p, power * (1.0 - bend));
}

fn focused(start: u32, c: u32, best: Place, others: f32, total: f32, log_total: f32) -> vec2<f32> {
    let z = f32(logits[start + c + p.logits_at]) - best.value;
    let e = exp(z);
    let rest = select(1.0 - e / total, others / total, c == best.at);
    return focus(e / total, rest, z - log_total);
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
    // The largest logit and the largest target, the first of equals.
    let none = Place(0.0, 0xffffffffu);
    var best = none;
    var right = none;
    for (var c = t; c < p.classes; c += TREE) {
        best = later(best, Place(f32(logits[start + c + p.logits_at]), c));
        right = later(right, Place(f32(targets[start + c + p.targets_at]), c));
    }
    best = tree_largest(t, best);
    right = tree_largest(t, right);

    // The largest has an exponential of 1; the others are summed by themselves, so that 1 - p is exact where p is near 1.
    var others = 0.0;
    for (var c = t; c < p.classes; c += TREE) {
        if (c != best.at) {
            others += exp(f32(logits[start + c + p.logits_at]) - best.value);
        }
    }
    others = tree_sum(t, others);
    let total = 1.0 + others;
    let log_total = log_above_one(others);

    var loss = 0.0;
    var pull = 0.0;
    for (var c = t; c < p.classes; c += TREE) {
        let target_weight = f32(targets[start + c + p.targets_at]);
        if (target_weight != 0.0) {
            let seen = focused(start, c, best, others, total, log_total);
            loss -= target_weight * seen.x;
            pull += target_weight * seen.y;
        }
    }
    loss = tree_sum(t, loss);
    pull = tree_sum(t, pull);
    if (p.has_grad != 0u) {
        for (var c = t; c < p.classes; c += TREE) {
            let z = f32(logits[start + c + p.logits_at]) - best.value;
            let target_weight = f32(targets[start + c + p.targets_at]);
            var own = 0.0;
            if (target_weight != 0.0) {
                own = target_weight * focused(start, c, best, others, total, log_total).y;
            }
            grad[start + c + p.grad_at] = S4(pull * (exp(z) / total) - own);
        }
    }
    if (t == 0u) {
        rows[row + p.rows_at] = S3(loss);
        let hit = best.at == right.at && !is_nan(best.value) && right.value > 0.0;
        rows[p.n + row + p.rows_at] = S3(select(0.0, 1.0, hit));
    }
}
