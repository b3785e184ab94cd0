//! A confusion matrix of a size that can be looked at.

use defrost_train::Validation;

/// Above so many classes only those of the most confused pairs are shown.
const MOST: usize = 32;
/// How many are shown then.
const KEPT: usize = 24;

/// Counts of truths by predictions, whole or of the most confused classes.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// The classes' names; the last is the other classes together where there are any.
    pub(crate) names: Vec<String>,
    /// Which class a row is; nothing for the others together.
    pub(crate) class: Vec<Option<usize>>,
    /// `counts[truth][prediction]`.
    pub(crate) counts: Vec<Vec<usize>>,
    /// Classes that have no row of their own.
    pub(crate) others: usize,
}

impl Matrix {
    /// The matrix of all classes, or of the most confused ones with the others in one last row and column.
    pub(crate) fn new(v: &Validation) -> Self {
        let n = v.confusion.len();
        let mut kept: Vec<usize> = (0..n).collect();
        if n > MOST {
            kept = most_confused(v);
        }
        let others = n - kept.len();
        let size = kept.len() + usize::from(others > 0);
        let mut row_of = vec![size.saturating_sub(1); n];
        kept.iter().enumerate().for_each(|(row, &c)| row_of[c] = row);
        let mut counts = vec![vec![0; size]; size];
        for (truth, row) in v.confusion.iter().enumerate() {
            for (prediction, &images) in row.iter().enumerate() {
                counts[row_of[truth]][row_of[prediction]] += images;
            }
        }
        let mut names: Vec<_> = kept.iter().map(|&c| v.classes[c].clone()).collect();
        let mut class: Vec<_> = kept.into_iter().map(Some).collect();
        if others > 0 {
            names.push(format!("{others} others"));
            class.push(None);
        }
        Self { names, class, counts, others }
    }

    /// Which part of a row's images is in a column.
    pub(crate) fn share(&self, truth: usize, prediction: usize) -> f64 {
        let all: usize = self.counts[truth].iter().sum();
        if all == 0 { 0.0 } else { self.counts[truth][prediction] as f64 / all as f64 }
    }
}

/// The classes of the most frequent pairs, mistakes in both directions taken together. Those that are taken for one
/// another stand side by side.
fn most_confused(v: &Validation) -> Vec<usize> {
    let n = v.confusion.len();
    let both = |a: usize, b: usize| v.confusion[a][b] + v.confusion[b][a];
    let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).filter(|&(a, b)| both(a, b) > 0);
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by_key(|&(a, b)| (std::cmp::Reverse(both(a, b)), a, b));
    let mut kept = Vec::with_capacity(KEPT);
    for class in pairs.into_iter().flat_map(|(a, b)| [a, b]) {
        if kept.len() < KEPT && !kept.contains(&class) {
            kept.push(class);
        }
    }
    // A network that makes few mistakes has fewer such classes.
    for class in 0..n {
        if kept.len() < KEPT && !kept.contains(&class) {
            kept.push(class);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation(n: usize) -> Validation {
        let mut confusion = vec![vec![0; n]; n];
        (0..n).for_each(|i| confusion[i][i] = 5);
        confusion[n - 1][0] = 7;
        Validation { classes: (0..n).map(|i| format!("c{i}")).collect(), confusion, ..Validation::default() }
    }

    #[test]
    fn few_classes_are_shown_whole() {
        let m = Matrix::new(&validation(16));
        assert_eq!((m.names.len(), m.others), (16, 0));
        assert!((m.share(15, 0) - 7.0 / 12.0).abs() < 1e-12);
    }

    #[test]
    fn of_many_classes_the_confused_ones_stay_and_no_image_is_lost() {
        let m = Matrix::new(&validation(1000));
        assert_eq!((m.names.len(), m.others), (KEPT + 1, 1000 - KEPT));
        assert_eq!(&m.names[..2], ["c0", "c999"], "a pair stands side by side");
        assert_eq!(m.counts.iter().flatten().sum::<usize>(), 5007);
    }
}
