// First stage of a normalisation's gradients: sums of g and of g · x̂ over a chunk of positions, where g is the gradient
// that passes the activation and x̂ the normalised input.
struct Params {
    x_at: u32, mean_at: u32, spread_at: u32, grad_at: u32, y_at: u32, out_at: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
    variances: u32, eps: f32, activation: u32, has_x: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> mean: array<S2>;
@group(0) @binding(3) var<storage, read> spread: array<S3>;
@group(0) @binding(4) var<storage, read> grad: array<S4>;
@group(0) @binding(5) var<storage, read> y: array<S5>;
// [chunk, g or g · x̂, channel]
@group(0) @binding(6) var<storage, read_write> out: array<S6>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    let chunk = i / p.c;
    if (chunk >= p.chunks) {
        return;
    }
    let c = i - chunk * p.c;
    let start = p.first + chunk * p.rows;
    let last = min(start + p.rows, p.end);
    let centre = T(mean[c + p.mean_at]);
    var inv_std = T(spread[c + p.spread_at]);
    if (p.variances != 0u) {
        inv_std = T(1.0) / sqrt(inv_std + T(p.eps));
    }
    var sum = T(0.0);
    var product = T(0.0);
    for (var m = start; m < last; m++) {
        let at = m * p.c + c;
        var g = T(grad[at + p.grad_at]);
        if (p.activation != 0u) {
            g = passed(p.activation, T(y[at + p.y_at]), g);
        }
        sum += g;
        if (p.has_x != 0u) {
            product += g * ((T(x[at + p.x_at]) - centre) * inv_std);
        }
    }
    let at = (p.chunk + chunk) * 2u * p.c + c;
    out[at] = S6(sum);
    out[at + p.c] = S6(product);
}
