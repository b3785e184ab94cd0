// First stage of batch statistics: mean and sum of squared deviations of W channels over a chunk of positions, by
// Welford's updates relative to the chunk's first value, so that a mean far from 0 costs no digits.
struct Params {
    x_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Positions first .. end, those of a chunk, chunks of this dispatch, the first one's number; channels in units of W.
    first: u32, end: u32, rows: u32, chunks: u32, chunk: u32, c: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
// [chunk, mean or squares, channel]
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
    let pivot = T(x[chunk.start * p.c + c + p.x_at]);
    var mean = T(0.0);
    var squares = T(0.0);
    var count = 0.0;
    for (var m = chunk.start; m < chunk.last; m++) {
        let v = T(x[m * p.c + c + p.x_at]) - pivot;
        count += 1.0;
        let off = v - mean;
        mean += off / count;
        squares += off * (v - mean);
    }
    let at = chunk.number * 2u * p.c + c;
    out[at] = S2(pivot + mean);
    out[at + p.c] = S2(squares);
}
