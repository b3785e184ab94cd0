// Second stage: a workgroup adds the chunks of W channels up by a tree; writes the gradients of shift and scale, and both
// sums for the gradient of the input.
struct Params {
    parts_at: u32, weight_at: u32, bias_at: u32, sums_at: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    c: u32, chunks: u32, accumulate: u32, has_weight: u32, has_bias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<S1>;
@group(0) @binding(2) var<storage, read_write> grad_weight: array<S2>;
@group(0) @binding(3) var<storage, read_write> grad_bias: array<S3>;
@group(0) @binding(4) var<storage, read_write> sums: array<S4>;

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
    var sum = T(0.0);
    var product = T(0.0);
    for (var chunk = t; chunk < p.chunks; chunk += TREE) {
        let at = chunk * 2u * p.c + c;
        sum += T(parts[at]);
        product += T(parts[at + p.c]);
    }
    sum = tree_total(t, sum);
    product = tree_total(t, product);
    if (t == 0u) {
        sums[c + p.sums_at] = S4(sum);
        sums[p.c + c + p.sums_at] = S4(product);
        if (p.has_weight != 0u) {
            var g = product;
            if (p.accumulate != 0u) {
                g += T(grad_weight[c + p.weight_at]);
            }
            grad_weight[c + p.weight_at] = S2(g);
        }
        if (p.has_bias != 0u) {
            var g = sum;
            if (p.accumulate != 0u) {
                g += T(grad_bias[c + p.bias_at]);
            }
            grad_bias[c + p.bias_at] = S3(g);
        }
    }
}
