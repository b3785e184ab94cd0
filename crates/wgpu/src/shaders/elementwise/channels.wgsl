// Copies (or adds) some channels of an activation to some channels of another; channels in units of W.
struct Params {
    x_at: u32, out_at: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    // Positions first .. end; channels of both, the first ones, how many.
    first: u32, end: u32, x_c: u32, out_c: u32, source: u32, goal: u32, channels: u32, accumulate: u32,
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
    let position = p.first + i / p.channels;
    if (position >= p.end) {
        return;
    }
    let c = i % p.channels;
    let at = position * p.out_c + p.goal + c + p.out_at;
    var y = T(x[position * p.x_c + p.source + c + p.x_at]);
    if (p.accumulate != 0u) {
        y += T(out[at]);
    }
    out[at] = S2(y);
}
