// A and B are matrices: A is m x k (k x m where A_BY_M), B is k x n (n x k where B_BY_K), rows lda and ldb apart.
struct Shape {
    lda: u32, ldb: u32, pad0: u32, pad1: u32,
}

struct PlaceA { at: u32 }
struct PlaceB { at: u32 }

fn out_row(m: u32) -> u32 {
    return m;
}

fn place_a(m: u32, group: u32) -> PlaceA {
#if A_BY_M
    return PlaceA(m);
#else
    return PlaceA(m * p.s.lda);
#end
}

// Four neighbours in memory: of row m from k on, or of column k from m on.
fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
#if A_BY_M
    return four_a(k * p.s.lda + place.at);
#else
    return within(k, four_a(place.at + k));
#end
}

fn place_b(n: u32, group: u32) -> PlaceB {
#if B_BY_K
    return PlaceB(n * p.s.ldb);
#else
    return PlaceB(n);
#end
}

// Four neighbours in memory: of column n from k on, or of row k from n on.
fn load_b(place: PlaceB, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
#if B_BY_K
    return within(k, four_b(place.at + k));
#else
    return four_b(k * p.s.ldb + place.at);
#end
}
