// Second stage: a workgroup merges the chunks of W channels (Chan, Golub and LeVeque 1979) by a tree, then writes the
// batch's mean and inverse deviation and lets the running statistics take them in.
struct Params {
    parts_at: u32, mean_at: u32, inv_std_at: u32, running_mean_at: u32, running_var_at: u32, pad5: u32, pad6: u32, pad7: u32,
    // Channels in units of W, chunks, positions, those of a chunk; the last one may have fewer.
    c: u32, chunks: u32, positions: u32, rows: u32,
    eps: f32, momentum: f32, unbiased: u32, has_mean: u32, has_var: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<S1>;
@group(0) @binding(2) var<storage, read_write> mean_out: array<S2>;
@group(0) @binding(3) var<storage, read_write> inv_std_out: array<S3>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<S4>;
@group(0) @binding(5) var<storage, read_write> running_var: array<S5>;

var<workgroup> counts: array<f32, TREE>;
var<workgroup> means: array<T, TREE>;
var<workgroup> squares: array<T, TREE>;

struct Moments { count: f32, mean: T, squares: T }

fn merged(a: Moments, b: Moments) -> Moments {
    if (b.count == 0.0) {
        return a;
    }
    let count = a.count + b.count;
    let off = b.mean - a.mean;
    let share = b.count / count;
    return Moments(count, a.mean + off * share, a.squares + b.squares + off * off * (a.count * share));
}

@compute @workgroup_size(TREE)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let c = id.y * ids.x + id.x;
    if (c >= p.c) {
        return;
    }
    var sum = Moments(0.0, T(0.0), T(0.0));
    for (var chunk = t; chunk < p.chunks; chunk += TREE) {
        let at = chunk * 2u * p.c + c;
        let count = f32(min(p.rows, p.positions - chunk * p.rows));
        sum = merged(sum, Moments(count, T(parts[at]), T(parts[at + p.c])));
    }
    counts[t] = sum.count;
    means[t] = sum.mean;
    squares[t] = sum.squares;
    workgroupBarrier();
    for (var step = TREE / 2u; step > 0u; step /= 2u) {
        if (t < step) {
            let other = Moments(counts[t + step], means[t + step], squares[t + step]);
            let both = merged(Moments(counts[t], means[t], squares[t]), other);
            counts[t] = both.count;
            means[t] = both.mean;
            squares[t] = both.squares;
        }
        workgroupBarrier();
    }
    if (t == 0u) {
        let n = f32(p.positions);
        let mean = means[0];
        mean_out[c + p.mean_at] = S2(mean);
        inv_std_out[c + p.inv_std_at] = S3(T(1.0) / sqrt(squares[0] / n + T(p.eps)));
        if (p.has_mean != 0u) {
            let old = T(running_mean[c + p.running_mean_at]);
            running_mean[c + p.running_mean_at] = S4(old * (1.0 - p.momentum) + mean * p.momentum);
        }
        if (p.has_var != 0u) {
            let variance = squares[0] / select(n, n - 1.0, p.unbiased != 0u);
            let old = T(running_var[c + p.running_var_at]);
            running_var[c + p.running_var_at] = S5(old * (1.0 - p.momentum) + variance * p.momentum);
        }
    }
}
