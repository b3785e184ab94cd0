// Softmax cross-entropy: a workgroup a row. Writes each row's loss and whether it is a hit; `total` adds them up.
struct Params {
    logits_at: u32, targets_at: u32, rows_at: u32, grad_at: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    n: u32, classes: u32, has_grad: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<S1>;
@group(0) @binding(2) var<storage, read> targets: array<S2>;
// [loss or hit, row]
@group(0) @binding(3) var<storage, read_write> rows: array<S3>;
@group(0) @binding(4) var<storage, read_write> grad: array<S4>;

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

    var total = 0.0;
    var loss = 0.0;
    var weight = 0.0;
    for (var c = t; c < p.classes; c += TREE) {
        let z = f32(logits[start + c + p.logits_at]) - best.value;
        let target_weight = f32(targets[start + c + p.targets_at]);
        total += exp(z);
        weight += target_weight;
        if (target_weight != 0.0) {
            loss -= target_weight * z;
        }
    }
    total = tree_sum(t, total);
    loss = tree_sum(t, loss);
    weight = tree_sum(t, weight);
    if (p.has_grad != 0u) {
        for (var c = t; c < p.classes; c += TREE) {
            let z = f32(logits[start + c + p.logits_at]) - best.value;
            let target_weight = f32(targets[start + c + p.targets_at]);
            grad[start + c + p.grad_at] = S4(weight * (exp(z) / total) - target_weight);
        }
    }
    if (t == 0u) {
        rows[row + p.rows_at] = S3(loss + weight * log(total));
        let hit = best.at == right.at && !is_nan(best.value);
        rows[p.n + row + p.rows_at] = S3(select(0.0, 1.0, hit));
    }
}
