//! What answers are worth: pure functions from outputs and truths to numbers.
//!
//! All definitions are scikit-learn's (`sklearn.metrics`), computed in double precision with sums in the data's order; the
//! tests compare with tables that scikit-learn and torchmetrics made (`tests/make_tables.py`). Where scikit-learn warns and
//! answers 0 or NaN because a class does not occur, the class is left out of the mean.

mod counts;
mod numbers;
mod ranking;

pub use counts::{Average, Counts, Scores, average, counts_of_confusion, counts_of_labels, subset_accuracy};
pub use numbers::{ValueError, value_errors};
pub use ranking::{average_precision, roc_auc};

/// The mean of what is defined; `None` where nothing is.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = values.into_iter().flatten().fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests;
