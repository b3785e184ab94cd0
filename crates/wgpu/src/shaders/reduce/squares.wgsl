// First stage of a sum of squares: each thread takes every `threads`-th piece of W elements.
struct Params {
    x_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Pieces first .. end, threads, the first thread's place in the result.
    first: u32, end: u32, threads: u32, start: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read_write> out: array<E2>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    if (i >= p.threads) {
        return;
    }
    var sum = T(0.0);
    for (var at = p.first + i; at < p.end; at += p.threads) {
        let v = T(x[at + p.x_at]);
        sum += v * v;
    }
#if VECTORS
    out[p.start + i] = sum.x + sum.y + sum.z + sum.w;
#else
    out[p.start + i] = sum;
#end
}
