//! How alike two sets of features of the same images are: linear CKA.

/// The inner products of `n` images' features, `n` by `n`, the features centred and the whole of norm 1. All that
/// comparing features by [`linear_cka`] needs of them, whatever their number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gram {
    values: Vec<f64>,
}

impl Gram {
    /// Of `features`, `[n, p]`. `None` where there is nothing to compare: fewer than two images, or features that are the
    /// same for all of them.
    pub(crate) fn of(features: &[f32], n: usize) -> Option<Self> {
        let p = features.len().checked_div(n).filter(|p| *p > 0 && n > 1)?;
        let mut centred: Vec<f64> = features.iter().map(|v| f64::from(*v)).collect();
        let mut mean = vec![0.0; p];
        for row in centred.chunks_exact(p) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n as f64);
        }
        for row in centred.chunks_exact_mut(p) {
            row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
        }
        let row = |i: usize| &centred[i * p..(i + 1) * p];
        let mut values = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let dot: f64 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
                (values[i * n + j], values[j * n + i]) = (dot, dot);
            }
        }
        let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        // What is left of equal features after rounding is no difference between images.
        let scale = mean.iter().map(|m| m * m).sum::<f64>() * n as f64;
        if norm.is_nan() || norm <= 1e-12 * scale || norm <= f64::MIN_POSITIVE {
            return None;
        }
        values.iter_mut().for_each(|v| *v /= norm);
        Some(Self { values })
    }

    /// Linear CKA with other features of the same images.
    pub(crate) fn cka(&self, other: &Self) -> f64 {
        self.values.iter().zip(&other.values).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0)
    }
}

/// Linear centred kernel alignment of two sets of features of the same `n` images, `[n, p]` and `[n, q]`:
/// `‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖)` in Frobenius norms, each feature's mean taken out. 1 for features that are the same but for
/// rotation, scale and offset, 0 for features that have nothing to do with one another. `None` for fewer than two images,
/// and for features that are the same for all images.
///
/// Kornblith, Norouzi, Lee and Hinton 2019, "Similarity of Neural Network Representations Revisited", equation 4, as inner
/// products of Gram matrices (their equation 3 with a linear kernel). Of fewer images than features it is biased upwards.
pub fn linear_cka(x: &[f32], y: &[f32], n: usize) -> Option<f64> {
    Some(Gram::of(x, n)?.cka(&Gram::of(y, n)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        n: usize,
        x: Vec<f32>,
        y: Vec<f32>,
        cka: f64,
    }

    /// `make_cka.py` wrote the table with the function that belongs to the paper.
    #[test]
    fn it_is_the_papers_number() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("cka.json")).unwrap();
        assert!(cases.len() >= 7);
        for c in cases {
            let got = linear_cka(&c.x, &c.y, c.n).unwrap();
            assert!((got - c.cka).abs() < 1e-9, "{}: {got} instead of {}", c.name, c.cka);
        }
    }

    #[test]
    fn features_without_a_difference_have_no_similarity() {
        assert_eq!(linear_cka(&[1.5; 6], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 3), None);
        assert_eq!(linear_cka(&[1.0, 2.0], &[1.0, 2.0], 1), None);
        assert_eq!(linear_cka(&[], &[], 0), None);
        assert_eq!(linear_cka(&[0.1; 9], &[0.1; 9], 3), None);
    }
}
