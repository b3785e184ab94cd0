//! What the tests share.

use crate::AlignedBuf;

/// `len` numbers in -1..1 that differ by `seed`.
pub(crate) fn random(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// `len` times `value`, on a cache line's boundary, as results lie in practice.
pub(crate) fn filled(len: usize, value: f32) -> AlignedBuf {
    let mut out = AlignedBuf::zeroed(len).unwrap();
    out.fill(value);
    out
}

/// Asserts that each element is within `tolerance` of the reference, relative to the reference's largest.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tolerance * scale, "{what}: element {i} is {g}, not {w}");
    }
}
