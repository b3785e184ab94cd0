// C = A · B: what all products share. `a`, `b` are read by what stands in for `load_a` and `load_b`: rows of matrices,
// or pictures that are gathered as a convolution asks (implicit GEMM). Both give zeros beyond the end of the sum; beyond
// the rows and columns of C they may give anything, as nothing of that is stored.
struct Params {
    a_at: u32, b_at: u32, bias_at: u32, residual_at: u32, out_at: u32, pad5: u32, pad6: u32, pad7: u32,
    // Rows m_first .. m_end of C, n columns a group, products k_first .. k_end.
    m_first: u32, m_end: u32, n: u32, k_first: u32, k_end: u32,
    // Tiles of C, and how many of them lie side by side.
    tiles: u32, tiles_n: u32,
    // Groups of columns that see other columns of A each, and parts of k that are summed afterwards.
    groups: u32, splits: u32, k_split: u32,
    // Elements from a row of C to the next.
    ldc: u32,
    accumulate: u32, has_bias: u32, has_residual: u32, activation: u32,
    pad: u32,
    s: Shape,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<S1>;
@group(0) @binding(2) var<storage, read> b: array<S2>;
@group(0) @binding(3) var<storage, read> bias: array<S3>;
@group(0) @binding(4) var<storage, read> residual: array<S4>;
@group(0) @binding(5) var<storage, read_write> out: array<S5>;

// Four neighbours in memory of A, from an element on.
fn four_a(at: u32) -> vec4<f32> {
#if VECTORS
    return vec4<f32>(a[at / 4u + p.a_at]);
#else
    let i = at + p.a_at;
    return vec4<f32>(f32(a[i]), f32(a[i + 1u]), f32(a[i + 2u]), f32(a[i + 3u]));
#end
}

// The same of B.
fn four_b(at: u32) -> vec4<f32> {
#if VECTORS
    return vec4<f32>(b[at / 4u + p.b_at]);
#else
    let i = at + p.b_at;
    return vec4<f32>(f32(b[i]), f32(b[i + 1u]), f32(b[i + 2u]), f32(b[i + 3u]));
#end
}

// Of four neighbours along the sum, from k on, those that belong to it; the others are 0.
fn within(k: u32, v: vec4<f32>) -> vec4<f32> {
#if VECTORS
    return v;
#else
    return select(vec4<f32>(), v, vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(p.k_end));
#end
}

// Stores one W-wide piece of row m at column n of a group.
fn finish(m: u32, n: u32, group: u32, sum: T) {
    let column = group * p.n + n;
    let at = (out_row(m) * p.ldc + column) / W;
    var y = sum;
    if (p.has_bias != 0u) {
        y += T(bias[column / W + p.bias_at]);
    }
    if (p.has_residual != 0u) {
        y += T(residual[at + p.residual_at]);
    }
    if (p.accumulate != 0u) {
        y += T(out[at + p.out_at]);
    }
    out[at + p.out_at] = S5(activated(p.activation, y));
}

// Stores four sums of row m from column n on: finished, or as one part of a sum.
fn store(m: u32, n: u32, group: u32, split: u32, sums: vec4<f32>) {
    if (m >= p.m_end || n >= p.n) {
        return;
    }
    if (p.splits > 1u) {
        let at = ((split * p.groups + group) * (p.m_end - p.m_first) + m - p.m_first) * p.n + n;
#if VECTORS
        out[at / 4u] = S5(sums);
#else
        for (var i = 0u; i < min(4u, p.n - n); i++) {
            out[at + i] = S5(sums[i]);
        }
#end
        return;
    }
#if VECTORS
    finish(m, n, group, sums);
#else
    for (var i = 0u; i < min(4u, p.n - n); i++) {
        finish(m, n + i, group, sums[i]);
    }
#end
}
