//! Precision, recall and F1 from counts.

/// How often a class occurs, is said, and is said rightly.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Images of the class.
    pub images: usize,
    /// Images said to be of it.
    pub predicted: usize,
    /// Images of it that are said to be of it.
    pub hits: usize,
}

impl Counts {
    /// The three scores; 0 where nothing could be divided by (scikit-learn's `zero_division=0`).
    pub fn scores(self) -> Scores {
        let ratio = |a: usize, b: usize| if b > 0 { a as f64 / b as f64 } else { 0.0 };
        Scores {
            precision: ratio(self.hits, self.predicted),
            recall: ratio(self.hits, self.images),
            f1: ratio(2 * self.hits, self.images + self.predicted),
        }
    }
}

/// Precision, recall and F1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Right among those said to be of the class.
    pub precision: f64,
    /// Right among those that are of it.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
}

/// How scores of classes become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Average {
    /// The mean over classes.
    Macro,
    /// The mean over classes weighted by their images.
    Weighted,
    /// The scores of all classes' counts together.
    Micro,
}

/// Counts of each class from `confusion[truth][prediction]`.
pub fn counts_of_confusion(confusion: &[Vec<usize>]) -> Vec<Counts> {
    let one = |class: usize| Counts {
        images: confusion[class].iter().sum(),
        predicted: confusion.iter().map(|row| row[class]).sum(),
        hits: confusion[class][class],
    };
    (0..confusion.len()).map(one).collect()
}

/// Counts of each label from what was said and what is true, both `[images, labels]`.
pub fn counts_of_labels(said: &[bool], truth: &[bool], labels: usize) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); labels];
    for (said, truth) in said.chunks_exact(labels.max(1)).zip(truth.chunks_exact(labels.max(1))) {
        for ((count, &said), &truth) in counts.iter_mut().zip(said).zip(truth) {
            count.images += usize::from(truth);
            count.predicted += usize::from(said);
            count.hits += usize::from(said && truth);
        }
    }
    counts
}

/// One set of scores of many. For [`Average::Macro`] give only the classes that are to count: scikit-learn takes those of a
/// single-label classification that occur or are said, and all labels where there are several an image.
pub fn average(counts: &[Counts], how: Average) -> Scores {
    let weighted = |weight: &dyn Fn(&Counts) -> f64| {
        let total: f64 = counts.iter().map(weight).sum();
        let mean = |score: fn(Scores) -> f64| match total > 0.0 {
            true => counts.iter().map(|c| weight(c) * score(c.scores())).sum::<f64>() / total,
            false => 0.0,
        };
        Scores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) }
    };
    match how {
        Average::Macro => weighted(&|_| 1.0),
        Average::Weighted => weighted(&|c| c.images as f64),
        Average::Micro => {
            let sum = |field: fn(&Counts) -> usize| counts.iter().map(field).sum();
            Counts { images: sum(|c| c.images), predicted: sum(|c| c.predicted), hits: sum(|c| c.hits) }
                .scores()
        }
    }
}

/// Part of the images for which every label is right; both are `[images, labels]` (scikit-learn's `accuracy_score` of label
/// indicators).
pub fn subset_accuracy(said: &[bool], truth: &[bool], labels: usize) -> f64 {
    let rows = said.chunks_exact(labels.max(1)).zip(truth.chunks_exact(labels.max(1)));
    let (right, all) =
        rows.fold((0usize, 0usize), |(right, all), (s, t)| (right + usize::from(s == t), all + 1));
    right as f64 / all.max(1) as f64
}
