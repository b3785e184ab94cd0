// First stage of channels' sums.
struct Params {
    x_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Positions first .. end, those of a chunk, chunks of this dispatch, the first one's number; channels in units of W.
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read_write> out: array<S2>;

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
    var sum = T(0.0);
    for (var m = chunk.start; m < chunk.last; m++) {
        sum += T(x[m * p.c + c + p.x_at]);
    }
    out[chunk.number * p.c + c] = S2(sum);
}
