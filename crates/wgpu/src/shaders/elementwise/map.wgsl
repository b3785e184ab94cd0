// out = activation(a), activation(a + b), or what passes of b where the activation's value is a; OP says which.
struct Params {
    a_at: u32, b_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, activation: u32, accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<S1>;
@group(0) @binding(2) var<storage, read> b: array<S2>;
@group(0) @binding(3) var<storage, read_write> out: array<S3>;

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
    var y = T(a[i + p.a_at]);
#if ADD
    y = activated(p.activation, y + T(b[i + p.b_at]));
#end
#if GRAD
    y = passed(p.activation, y, T(b[i + p.b_at]));
#end
#if ACTIVATE
    y = activated(p.activation, y);
#end
    if (p.accumulate != 0u) {
        y += T(out[i + p.out_at]);
    }
    out[i + p.out_at] = S3(y);
}
