//! The split into training and validation: stratified, and a function of seed and names alone.

use std::collections::HashMap;

use defrost_augment::Key;
use defrost_augment::key::purpose;
use sha2::{Digest, Sha256};

use crate::Sample;

/// Which samples are for validation, as one flag each.
///
/// In every class, files are put in the order of the hash of seed and name, and the first `fraction` of them
/// (rounded; at least one, and never all) is for validation. So an image that is added later moves at most one
/// other across, and neither the place of the folder nor the order in which files are found matters. Files with
/// the same bytes go to the same part, whatever their classes.
pub(crate) fn stratified(samples: &[Sample], classes: usize, fraction: f64, seed: u64) -> Vec<bool> {
    // Files with equal bytes rank as the first of them by name.
    let mut first: HashMap<[u8; 32], &str> = HashMap::new();
    for sample in samples {
        if let Some(hash) = sample.hash {
            let name = first.entry(hash).or_insert(&sample.name);
            *name = (*name).min(&sample.name);
        }
    }
    // The seed goes through the keyed generator so that neighbouring seeds have nothing in common.
    let salt = Key::new(seed, 0, 0).op(purpose::SPLIT).random().bits();
    let rank = |sample: &Sample| -> [u8; 32] {
        let name = sample.hash.and_then(|hash| first.get(&hash).copied()).unwrap_or(&sample.name);
        Sha256::new().chain_update(salt.to_le_bytes()).chain_update(name).finalize().into()
    };
    let mut by_class: Vec<Vec<([u8; 32], usize)>> = vec![Vec::new(); classes];
    for (index, sample) in samples.iter().enumerate() {
        by_class[sample.label as usize].push((rank(sample), index));
    }
    let mut validation = vec![false; samples.len()];
    let mut placed: HashMap<[u8; 32], bool> = HashMap::new();
    for mut class in by_class {
        class.sort_unstable();
        let n = class.len();
        let wanted = match (n as f64 * fraction).round() as usize {
            _ if n < 2 || fraction == 0.0 => 0,
            wanted => wanted.clamp(1, n - 1),
        };
        let mut taken = 0;
        for &(rank, index) in &class {
            let part = *placed.entry(rank).or_insert(taken < wanted);
            validation[index] = part;
            taken += usize::from(part);
        }
        // Nothing but copies of one file: a class that cannot be learned would be worse than a leak.
        if taken == n {
            class.iter().for_each(|&(_, index)| validation[index] = false);
        }
    }
    validation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(counts: &[usize]) -> Vec<Sample> {
        let sample = |label: usize, i: usize| Sample {
            path: Default::default(),
            name: format!("{label}/{i}.jpg"),
            label: label as u32,
            width: 1,
            height: 1,
            bytes: 1,
            hash: Some(Sha256::digest(format!("{label} {i}")).into()),
        };
        counts.iter().enumerate().flat_map(|(label, &n)| (0..n).map(move |i| sample(label, i))).collect()
    }

    fn per_class(samples: &[Sample], flags: &[bool], classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for (sample, _) in samples.iter().zip(flags).filter(|(_, f)| **f) {
            counts[sample.label as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_class_gives_its_share_and_keeps_one() {
        let all = samples(&[100, 11, 3, 2, 1]);
        let flags = stratified(&all, 5, 0.2, 0);
        assert_eq!(per_class(&all, &flags, 5), [20, 2, 1, 1, 0]);
        assert_eq!(per_class(&all, &stratified(&all, 5, 0.99, 0), 5), [99, 10, 2, 1, 0]);
        assert!(!stratified(&all, 5, 0.0, 0).contains(&true));
    }

    #[test]
    fn a_split_depends_on_seed_and_names_only() {
        let all = samples(&[50, 50]);
        let flags = stratified(&all, 2, 0.2, 7);
        assert_eq!(flags, stratified(&all, 2, 0.2, 7));
        assert_ne!(flags, stratified(&all, 2, 0.2, 8));
        // In another order, and with one more image: no other image moves but one.
        let mut more = samples(&[51, 50]);
        more.reverse();
        let again = stratified(&more, 2, 0.2, 7);
        let moved = all
            .iter()
            .zip(&flags)
            .filter(|(s, f)| more.iter().zip(&again).any(|(t, g)| t.name == s.name && g != *f))
            .count();
        assert!(moved <= 1, "{moved}");
    }

    #[test]
    fn equal_files_stay_together() {
        for seed in 0..20 {
            let mut all = samples(&[10, 10]);
            for i in [3, 5, 15] {
                all[i].hash = all[0].hash;
            }
            let flags = stratified(&all, 2, 0.5, seed);
            assert!([3, 5, 15].iter().all(|&i| flags[i] == flags[0]), "seed {seed}");
        }
        let mut copies = samples(&[3]);
        copies.iter_mut().for_each(|s| s.hash = Some([0; 32]));
        assert_eq!(stratified(&copies, 1, 0.5, 0), [false; 3]);
    }
}
