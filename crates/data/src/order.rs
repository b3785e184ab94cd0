//! Which samples an epoch sees, in which order: a function of seed and epoch alone.

use defrost_augment::Key;
use defrost_augment::key::purpose;
use serde::{Deserialize, Serialize};

/// How an epoch chooses its samples.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sampling {
    /// All of them in the order of the data set: for measuring.
    #[default]
    Sequential,
    /// All of them in random order.
    Shuffled,
    /// As many as there are, every class equally often: of a small class some are seen several times (each as
    /// often as the others, or once more), of a large one some not at all.
    Balanced,
    /// As many as there are, every class in proportion to its weight times its number of images. Weights of 1 are
    /// the natural proportions, `1 / images` is [`Sampling::Balanced`].
    ClassWeights(Vec<f64>),
}

/// The order of an epoch over samples with these labels.
pub(crate) fn order(
    sampling: &Sampling,
    labels: &[u32],
    classes: usize,
    seed: u64,
    epoch: u64,
) -> Vec<usize> {
    let n = labels.len();
    let mut random = Key::new(seed, epoch, 0).op(purpose::ORDER).random();
    match sampling {
        Sampling::Sequential => (0..n).collect(),
        Sampling::Shuffled => random.permutation(n),
        Sampling::Balanced | Sampling::ClassWeights(_) => {
            let mut members = vec![Vec::new(); classes];
            for (index, &label) in labels.iter().enumerate() {
                if let Some(class) = members.get_mut(label as usize) {
                    class.push(index);
                }
            }
            let share = |(class, members): (usize, &Vec<usize>)| match sampling {
                _ if members.is_empty() => 0.0,
                Sampling::ClassWeights(weights) => weights[class] * members.len() as f64,
                _ => 1.0,
            };
            let shares: Vec<f64> = members.iter().enumerate().map(share).collect();
            let mut order = Vec::with_capacity(n);
            // The classes that get one more change from epoch to epoch.
            let turn = random.permutation(classes);
            for (class, quota) in quotas(n, &shares, &turn).into_iter().enumerate() {
                let mut left = quota;
                while left > 0 {
                    let mut round = members[class].clone();
                    random.shuffle(&mut round);
                    round.truncate(left);
                    left -= round.len();
                    order.extend(round);
                }
            }
            random.shuffle(&mut order);
            order
        }
    }
}

/// `n` split in proportion to `shares`: the largest remainders are rounded up, ties in the order of `turn`.
fn quotas(n: usize, shares: &[f64], turn: &[usize]) -> Vec<usize> {
    let total: f64 = shares.iter().sum();
    if total <= 0.0 {
        return vec![0; shares.len()];
    }
    let exact: Vec<f64> = shares.iter().map(|s| n as f64 * s / total).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut by_rest: Vec<usize> = turn.iter().copied().filter(|&c| shares[c] > 0.0).collect();
    let rest = |c: usize| exact[c] - exact[c].floor();
    by_rest.sort_by(|&a, &b| rest(b).total_cmp(&rest(a)));
    let missing = n.saturating_sub(quotas.iter().sum());
    for &class in by_rest.iter().cycle().take(missing) {
        quotas[class] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(counts: &[usize]) -> Vec<u32> {
        counts.iter().enumerate().flat_map(|(l, &n)| vec![l as u32; n]).collect()
    }

    fn histogram(order: &[usize], n: usize) -> Vec<usize> {
        let mut counts = vec![0; n];
        order.iter().for_each(|&i| counts[i] += 1);
        counts
    }

    #[test]
    fn shuffled_epochs_are_different_permutations() {
        let labels = labels(&[40, 60]);
        let epoch = |seed, epoch| order(&Sampling::Shuffled, &labels, 2, seed, epoch);
        assert_eq!(histogram(&epoch(0, 0), 100), [1; 100]);
        assert_eq!(epoch(0, 3), epoch(0, 3));
        assert_ne!(epoch(0, 3), epoch(0, 4));
        assert_ne!(epoch(0, 3), epoch(1, 3));
        assert_eq!(order(&Sampling::Sequential, &labels, 2, 5, 5), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn balanced_epochs_show_every_class_equally_often() {
        let labels = labels(&[90, 7, 0, 3]);
        let order = order(&Sampling::Balanced, &labels, 4, 1, 0);
        assert_eq!(order.len(), 100);
        let times = histogram(&order, 100);
        let class = |range: std::ops::Range<usize>| times[range].iter().sum::<usize>();
        for count in [class(0..90), class(90..97), class(97..100)] {
            assert!((33..=34).contains(&count), "{count}");
        }
        // Within a class, no image is seen twice more than another.
        for range in [0..90, 90..97, 97..100] {
            let (least, most) = (times[range.clone()].iter().min(), times[range].iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1);
        }
    }

    #[test]
    fn class_weights_change_the_proportions() {
        let labels = labels(&[50, 50]);
        let order = order(&Sampling::ClassWeights(vec![3.0, 1.0]), &labels, 2, 1, 0);
        assert_eq!(order.iter().filter(|&&i| i < 50).count(), 75);
        assert_eq!(order.len(), 100);
    }
}
