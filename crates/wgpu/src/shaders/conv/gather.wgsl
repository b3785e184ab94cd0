// A is a picture: `a_at` says which element a row's place meets at k, or NOWHERE.
fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
#if VECTORS
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    let at = a_at(place, k);
    if (at == NOWHERE) {
        return vec4<f32>();
    }
    return four_a(at);
#else
    var v = vec4<f32>();
#for i 0 4
    if (k + {i}u < p.k_end) {
        let at{i} = a_at(place, k + {i}u);
        if (at{i} != NOWHERE) {
            v[{i}] = f32(a[at{i} + p.a_at]);
        }
    }
#end
    return v;
#end
}
