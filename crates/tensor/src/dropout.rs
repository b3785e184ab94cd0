//! Which elements dropout keeps: a keyed hash, so that every backend and every thread count drops the same ones.

/// Whether dropout `layer` keeps element `index` (its place in `c, h, w` order) of the image with `key`.
///
/// The decision is `hash(key, layer, index) / 2³² >= rate`, where the hash chains MurmurHash3's 32-bit finaliser: 32-bit
/// operations only, so that shaders can follow it bit for bit.
#[inline]
pub fn dropout_keeps(key: [u32; 2], layer: u32, index: u32, rate: f32) -> bool {
    let h =
        mix(key[0]
            ^ mix(key[1] ^ mix(layer.wrapping_mul(0x9E37_79B9) ^ mix(index.wrapping_add(0x7F4A_7C15)))));
    // The top 24 bits are exact as f32.
    (h >> 8) as f32 >= rate * 16_777_216.0
}

/// MurmurHash3's `fmix32` (Appleby, public domain).
#[inline]
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    use super::dropout_keeps;

    #[test]
    fn keeps_the_share_it_says_and_differs_by_key_and_layer() {
        for rate in [0.0, 0.2, 0.5, 0.9] {
            let kept = (0..100_000).filter(|&i| dropout_keeps([7, 9], 1, i, rate)).count();
            assert!((kept as f32 / 1e5 - (1.0 - rate)).abs() < 0.005, "{rate}: {kept}");
        }
        let mask = |key, layer| (0..64).map(|i| dropout_keeps(key, layer, i, 0.5)).collect::<Vec<_>>();
        assert_ne!(mask([1, 2], 0), mask([1, 3], 0));
        assert_ne!(mask([1, 2], 0), mask([2, 2], 0));
        assert_ne!(mask([1, 2], 0), mask([1, 2], 1));
    }
}
