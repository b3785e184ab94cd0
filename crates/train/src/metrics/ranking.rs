//! Scores of an order: how far those of a class are ranked above the others.

/// Average precision, Σ (recall_i - recall_i-1) precision_i over the distinct scores (scikit-learn's
/// `average_precision_score`: a sum, not the area under an interpolated curve). `answers` are pairs of a score and whether
/// the image is of the class, in any order. `None` where no image is of the class.
pub fn average_precision(answers: &[(f64, bool)]) -> Option<f64> {
    let positives = answers.iter().filter(|r| r.1).count();
    let ranked = ranked(answers);
    let (mut found, mut sum, mut seen) = (0, 0.0, 0);
    for equal in ranked.chunk_by(|a, b| a.0 == b.0) {
        let new = equal.iter().filter(|r| r.1).count();
        found += new;
        seen += equal.len();
        sum += new as f64 * found as f64 / seen as f64;
    }
    (positives > 0).then(|| sum / positives as f64)
}

/// Area under the receiver operating characteristic: the chance that an image of the class is ranked above one that is not,
/// a tie counting half (Mann and Whitney 1947; scikit-learn's `roc_auc_score`). `answers` as for [`average_precision`].
/// `None` where all images are of the class or none is.
pub fn roc_auc(answers: &[(f64, bool)]) -> Option<f64> {
    let positives = answers.iter().filter(|r| r.1).count();
    let negatives = answers.len() - positives;
    let ranked = ranked(answers);
    let (mut above, mut sum) = (0, 0.0);
    for equal in ranked.chunk_by(|a, b| a.0 == b.0) {
        let new = equal.iter().filter(|r| r.1).count();
        let other = equal.len() - new;
        sum += other as f64 * (above as f64 + new as f64 / 2.0);
        above += new;
    }
    (positives > 0 && negatives > 0).then(|| sum / (positives as f64 * negatives as f64))
}

/// The greatest score first.
fn ranked(answers: &[(f64, bool)]) -> Vec<(f64, bool)> {
    let mut ranked = answers.to_vec();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    ranked
}
