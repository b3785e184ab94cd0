// First stage of a normalisation's gradients: sums of g and of g · x̂ over a chunk of positions, where g is the gradient
// that passes the activation and x̂ the normalised input. What passes is known from the activation's values, `y`; or, where
// `y` is the shift instead, from x̂.
struct Params {
    x_at: u32, mean_at: u32, spread_at: u32, grad_at: u32, y_at: u32, weight_at: u32, out_at: u32, pad7: u32,
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
    variances: u32, eps: f32, activation: u32, has_x: u32, has_shift: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> mean: array<S2>;
@group(0) @binding(3) var<storage, read> spread: array<S3>;
@group(0) @binding(4) var<storage, read> grad: array<S4>;
@group(0) @binding(5) var<storage, read> y: array<S5>;
@group(0) @binding(6) var<storage, read> weight: array<S6>;
// [chunk, g or g · x̂, channel]
@group(0) @binding(7) var<storage, read_write> out: array<S7>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    if (i >= p.chunks * p.c) {
        return;
    }
    let chunk = chunk_of(i);
    let c = chunk.c;
    let centre = T(mean[c + p.mean_at]);
    var inv_std = T(spread[c + p.spread_at]);
    if (p.variances != 0u) {
        inv_std = T(1.0) / sqrt(inv_std + T(p.eps));
    }
    var scale = T(0.0);
    var shift = T(0.0);
    if (p.has_shift != 0u) {
        scale = T(weight[c + p.weight_at]);
        shift = T(y[c + p.y_at]);
    }
    var sum = T(0.0);
    var product = T(0.0);
    for (var m = chunk.start; m < chunk.last; m++) {
        let at = m * p.c + c;
        var g = T(grad[at + p.grad_at]);
        var normal = T(0.0);
        if (p.has_x != 0u) {
            normal = (T(x[at + p.x_at]) - centre) * inv_std;
        }
        if (p.has_shift != 0u) {
            g = passed(p.activation, activated(p.activation, normal * scale + shift), g);
        } else if (p.activation != 0u) {
            g = passed(p.activation, T(y[at + p.y_at]), g);
        }
        sum += g;
        product += g * normal;
    }
    let at = chunk.number * 2u * p.c + c;
    out[at] = S7(sum);
    out[at + p.c] = S7(product);
}
