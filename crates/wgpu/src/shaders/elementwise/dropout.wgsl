// out = x / (1 - rate) where a keyed hash keeps the element, else 0.
struct Params {
    x_at: u32, keys_at: u32, out_at: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32,
    first: u32, end: u32, c: u32, layer: u32, accumulate: u32, threshold: f32, scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<S1>;
@group(0) @binding(2) var<storage, read> keys: array<S2>;
@group(0) @binding(3) var<storage, read_write> out: array<S3>;

// MurmurHash3's fmix32.
fn mixed(h0: u32) -> u32 {
    var h = h0;
    h ^= h >> 16u;
    h *= 0x85ebca6bu;
    h ^= h >> 13u;
    h *= 0xc2b2ae35u;
    return h ^ (h >> 16u);
}

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
    let image = i / p.c;
    let key0 = u32(keys[2u * image + p.keys_at]);
    let key1 = u32(keys[2u * image + 1u + p.keys_at]);
    let place = mixed(p.layer * 0x9e3779b9u ^ mixed(i - image * p.c + 0x7f4a7c15u));
    let h = mixed(key0 ^ mixed(key1 ^ place));
    var y = 0.0;
    if (f32(h >> 8u) >= p.threshold) {
        y = f32(x[i + p.x_at]) * p.scale;
    }
    if (p.accumulate != 0u) {
        y += f32(out[i + p.out_at]);
    }
    out[i + p.out_at] = S3(y);
}
