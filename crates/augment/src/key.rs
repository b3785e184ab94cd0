//! Keyed random numbers.
//!
//! A [`Key`] is four 64-bit numbers. Written little-endian in the order seed, epoch, sample, op they are
//! exactly the 256-bit key of ChaCha8, and the random numbers of the key are that cipher's keystream from block
//! 0 with a zero nonce. No hash, no state, no order in which keys have to be asked for. The stream and the
//! functions on [`Random`] that turn it into numbers are fixed for ever: a run that is repeated years later
//! sees the same pixels. Fixed values in the tests hold them.
//!
//! Who uses which `op`: a pipeline numbers its operations from 0; everything else that needs random numbers
//! takes one of the constants of [`purpose`], which no pipeline can reach.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Values of [`Key::op`] for what is no operation of a pipeline.
pub mod purpose {
    /// The order of the samples in an epoch (`sample` is 0).
    pub const ORDER: u64 = 1 << 32;
    /// Draws of a sampler that is not a permutation (`sample` is the position in the epoch).
    pub const DRAW: u64 = 2 << 32;
    /// The split into training and validation (`epoch` is 0).
    pub const SPLIT: u64 = 3 << 32;
    /// Mixup and cutmix (`sample` is the number of the batch).
    pub const MIX: u64 = 4 << 32;
    /// Which sample takes the place of one that cannot be read (`sample` is the position in the epoch).
    pub const SUBSTITUTE: u64 = 5 << 32;
    /// Dropout and other randomness inside of the network (`sample` is the number of the step).
    pub const NETWORK: u64 = 6 << 32;
    /// Initial values of parameters (`epoch` is 0, `sample` the number of the parameter).
    pub const INIT: u64 = 7 << 32;
}

/// What random numbers are asked for: the same key gives the same numbers, always and everywhere.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Key {
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The index of the sample in its data set (not its position in the epoch).
    pub sample: u64,
    /// The operation: its position in the pipeline, or a constant of [`purpose`].
    pub op: u64,
}

impl Key {
    /// The key of a sample; operations derive theirs with [`Key::op`].
    pub const fn new(seed: u64, epoch: u64, sample: u64) -> Self {
        Self { seed, epoch, sample, op: 0 }
    }

    /// The same sample, another operation.
    #[must_use]
    pub const fn op(self, op: u64) -> Self {
        Self { op, ..self }
    }

    /// The numbers of this key, from the first.
    pub fn random(self) -> Random {
        let mut bytes = [0; 32];
        for (slot, word) in bytes.chunks_exact_mut(8).zip([self.seed, self.epoch, self.sample, self.op]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Random(ChaCha8Rng::from_seed(bytes))
    }
}

/// The random numbers of one [`Key`], in their order.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// 64 uniform bits: the next two words of the keystream, low word first.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform between `low` and `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..n` without bias; 0 if `n` is 0 or 1 (Lemire 2019, "Fast random integer generation in an
    /// interval").
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n < 2 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.bits()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// The numbers `0..n` in random order (Fisher and Yates, from the end).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// Puts the items in random order (Fisher and Yates, from the end).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Standard normal (Box and Muller; the second of each pair is not kept).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with shape `shape` and scale 1 (Marsaglia and Tsang 2000; shapes below 1 by their boost).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.uniform()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.uniform();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Beta(a, b), both positive; 0.5 where both gammas underflow (shapes near zero).
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma(a), self.gamma(b));
        if x + y > 0.0 { x / (x + y) } else { 0.5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_these_numbers_for_ever() {
        // The first eight bytes of the ChaCha8 keystream for the all-zero key (draft-strombergson-chacha-test-vectors).
        assert_eq!(
            Key::new(0, 0, 0).random().bits(),
            u64::from_le_bytes([0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6])
        );
        // From the definition alone: reference/keys.py.
        let mut random = Key::new(1, 2, 3).op(4).random();
        let first: Vec<u64> = (0..3).map(|_| random.bits()).collect();
        assert_eq!(first, [0x10fb_f7e8_ae24_33fc, 0x5862_c07f_a87d_368e, 0x4042_b86e_e70f_e64d]);
        let order = Key::new(42, 0, 0).op(purpose::ORDER).random().permutation(10);
        assert_eq!(order, [1, 2, 7, 3, 0, 8, 6, 4, 5, 9]);
        let mut random = Key::new(9, 9, 9).random();
        assert_eq!(random.uniform(), 0.08951962477797104);
        assert_eq!(random.between(-1.0, 3.0), 0.7193188766440723);
        assert_eq!(random.below(1000), 971);
    }

    #[test]
    fn every_part_of_a_key_matters() {
        let base = Key::new(1, 1, 1).op(1);
        let others = [
            Key { seed: 2, ..base },
            Key { epoch: 2, ..base },
            Key { sample: 2, ..base },
            Key { op: 2, ..base },
        ];
        for other in others {
            assert_ne!(base.random().bits(), other.random().bits(), "{other:?}");
        }
        assert_eq!(base.random().bits(), base.random().bits());
    }

    #[test]
    fn numbers_have_their_distributions() {
        let mut random = Key::new(5, 0, 0).random();
        let n = 20_000;
        let mut counts = [0usize; 7];
        for _ in 0..n {
            counts[random.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| (c as f64 - n as f64 / 7.0).abs() < 250.0), "{counts:?}");
        let mean = |f: &mut dyn FnMut() -> f64| (0..n).map(|_| f()).sum::<f64>() / n as f64;
        assert!((mean(&mut || random.uniform()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || random.normal().powi(2)) - 1.0).abs() < 0.05);
        assert!((mean(&mut || random.gamma(2.5)) - 2.5).abs() < 0.05);
        // The variance of Beta(a, a) is 1 / (8 a + 4).
        for a in [0.2, 1.0, 4.0] {
            let variance = mean(&mut || (random.beta(a, a) - 0.5).powi(2));
            assert!((variance - 1.0 / (8.0 * a + 4.0)).abs() < 0.005, "Beta({a}, {a}): {variance}");
        }
    }

    #[test]
    fn edges_do_not_hang() {
        let mut random = Key::new(0, 0, 0).random();
        assert_eq!((random.below(0), random.below(1)), (0, 0));
        assert!(random.permutation(0).is_empty());
        assert!(!random.chance(0.0));
        assert!(random.chance(1.0));
        assert!((0.0..=1.0).contains(&random.beta(1e-3, 1e-3)));
    }
}
