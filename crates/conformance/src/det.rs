//! Numbers that look random and depend on nothing but a name: the formula that the golden files were made with.

use defrost_tensor::HostTensor;

/// Reproducible numbers of any shape, uniform in `centre ± bound`, without a file that holds them.
///
/// ```text
/// key   = FNV-1a 64 of the UTF-8 name
/// z     = splitmix64(key + (i + 1) · 0x9E3779B97F4A7C15)      i = flat row-major index, all mod 2⁶⁴
/// u     = (z >> 40) / 2²⁴                                     in [0, 1)
/// value = centre + bound · (2u - 1)                           computed in f64, rounded to f32
/// ```
pub fn det(name: &str, shape: impl Into<Vec<usize>>, centre: f64, bound: f64) -> HostTensor {
    let shape = shape.into();
    let data = det_f64(name, shape.iter().product(), centre, bound).iter().map(|&v| v as f32).collect();
    HostTensor::new(shape, data).expect("as many numbers as the shape holds were made")
}

/// The first `len` numbers of [`det`], not rounded.
pub fn det_f64(name: &str, len: usize, centre: f64, bound: f64) -> Vec<f64> {
    let key = fnv1a(name.as_bytes());
    let unit = |i: u64| (splitmix64(key, i + 1) >> 40) as f64 / f64::from(1u32 << 24);
    (0..len as u64).map(|i| centre + bound * (2.0 * unit(i) - 1.0)).collect()
}

/// Fowler, Noll and Vo's 64-bit hash, variant 1a.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// Number `i` of the generator that starts at `key` (Steele, Lea and Flood 2014).
fn splitmix64(key: u64, i: u64) -> u64 {
    let mut z = key.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
