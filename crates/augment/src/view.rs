//! Test-time augmentation: several views of one image whose predictions are averaged.
//!
//! A view is a pipeline with a weight, so measuring with views is measuring several times and adding up.

use serde::{Deserialize, Serialize};

use crate::{Anchor, Error, Flip, Op, Pipeline};

/// Which views of each image are predicted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TestTime {
    /// The image as it is for evaluation.
    #[default]
    Plain,
    /// And its mirror image.
    Flip,
    /// The middle and the four corners (torchvision's `FiveCrop`).
    FiveCrop,
    /// Those, and their mirror images (torchvision's `TenCrop`).
    TenCrop,
    /// The mean over `n` views of the training augmentation, mixed with the plain view: weight `beta` for the
    /// plain one, `1 - beta` for the mean of the others (fastai's `tta`, whose defaults are 4 and 0.25).
    Augmented {
        /// Views of the training augmentation.
        #[serde(default = "four")]
        n: usize,
        /// Weight of the plain view, 0 to 1.
        #[serde(default = "quarter")]
        beta: f64,
    },
}

const fn four() -> usize {
    4
}

const fn quarter() -> f64 {
    0.25
}

/// One view: predictions for `pipeline` in the random epoch `epoch` count with `weight`.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its part of the mean; all weights add up to 1.
    pub weight: f64,
    /// What makes the view.
    pub pipeline: Pipeline,
    /// The epoch of the keys; 0 where nothing is random.
    pub epoch: u64,
}

impl TestTime {
    /// The words that [`TestTime::named`] knows.
    pub const NAMES: [&str; 5] = ["plain", "flip", "five_crop", "ten_crop", "augmented"];

    /// fastai's: four views of the training augmentation, and the plain one with a quarter of the weight.
    pub const fn augmented() -> Self {
        Self::Augmented { n: four(), beta: quarter() }
    }

    /// By its name; a number is so many augmented views.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "plain" => Self::Plain,
            "flip" => Self::Flip,
            "five_crop" => Self::FiveCrop,
            "ten_crop" => Self::TenCrop,
            "augmented" => Self::augmented(),
            number => Self::Augmented { n: number.parse().ok()?, beta: quarter() },
        })
    }

    /// The name as written in a recipe.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Flip => "flip",
            Self::FiveCrop => "five_crop",
            Self::TenCrop => "ten_crop",
            Self::Augmented { .. } => "augmented",
        }
    }

    /// Whether every parameter is in its range.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check(&self) -> Result<(), Error> {
        let check = crate::check::Check { index: 0, op: self.name() };
        match *self {
            Self::Augmented { n, beta } => {
                check.holds("n", n, (1..=1000).contains(&n), "1 to 1000")?;
                check.holds("beta", beta, (0.0..=1.0).contains(&beta), "0 to 1")
            }
            _ => Ok(()),
        }
    }

    /// The views, given the pipelines for evaluation and for training.
    ///
    /// Corners are cut from what the evaluation's [`Resize`](crate::Resize) makes of the image; with a crop of 1
    /// a square image has one corner only, and so the same view five times.
    pub fn views(&self, eval: &Pipeline, train: &Pipeline) -> Vec<View> {
        let plain = || vec![eval.clone()];
        let (pipelines, random, beta) = match self {
            Self::Plain => (plain(), 0, 1.0),
            Self::Flip => (vec![eval.clone(), mirrored(eval)], 0, 1.0),
            Self::FiveCrop => (corners(eval), 0, 1.0),
            Self::TenCrop => {
                let five = corners(eval);
                let mirrors: Vec<_> = five.iter().map(mirrored).collect();
                ([five, mirrors].concat(), 0, 1.0)
            }
            Self::Augmented { n: 0, .. } => (plain(), 0, 1.0),
            Self::Augmented { n, beta } => (plain(), *n, beta.clamp(0.0, 1.0)),
        };
        let weight = beta / pipelines.len() as f64;
        let fixed = pipelines.into_iter().map(|pipeline| View { weight, pipeline, epoch: 0 });
        let views = (0..random).map(|epoch| View {
            weight: (1.0 - beta) / random as f64,
            pipeline: train.clone(),
            epoch: epoch as u64,
        });
        fixed.chain(views).filter(|view| view.weight > 0.0).collect()
    }
}

fn mirrored(pipeline: &Pipeline) -> Pipeline {
    let mut ops = pipeline.0.clone();
    ops.push(Op::FlipHorizontal(Flip { p: 1.0 }));
    Pipeline(ops)
}

fn corners(eval: &Pipeline) -> Vec<Pipeline> {
    use Anchor::{BottomLeft, BottomRight, Center, TopLeft, TopRight};
    [Center, TopLeft, TopRight, BottomLeft, BottomRight]
        .into_iter()
        .map(|anchor| {
            let mut ops = eval.0.clone();
            for op in &mut ops {
                if let Op::Resize(resize) = op {
                    resize.anchor = anchor;
                }
            }
            Pipeline(ops)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Interpolation, Key, Size};

    fn weights(kind: &TestTime) -> Vec<f64> {
        let views = kind.views(&Pipeline::eval(0.5, Interpolation::Bilinear), &Pipeline::train());
        views.iter().map(|v| v.weight).collect()
    }

    #[test]
    fn weights_add_up_to_one() {
        assert_eq!(weights(&TestTime::Plain), [1.0]);
        assert_eq!(weights(&TestTime::Flip), [0.5; 2]);
        assert_eq!(weights(&TestTime::TenCrop), [0.1; 10]);
        // fastai: 0.25 plain, 0.75 over four augmented views.
        assert_eq!(
            weights(&TestTime::Augmented { n: 4, beta: 0.25 }),
            [0.25, 0.1875, 0.1875, 0.1875, 0.1875]
        );
        assert_eq!(weights(&TestTime::Augmented { n: 2, beta: 0.0 }), [0.5; 2]);
        assert_eq!(weights(&TestTime::Augmented { n: 0, beta: 0.25 }), [1.0]);
    }

    #[test]
    fn every_kind_has_a_name() {
        for name in TestTime::NAMES {
            let kind = TestTime::named(name).unwrap();
            assert_eq!(kind.name(), name);
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<TestTime>(&text).unwrap(), kind, "{text}");
        }
        assert_eq!(serde_json::from_str::<TestTime>(r#"{"augmented":{}}"#).unwrap(), TestTime::augmented());
        assert_eq!(TestTime::named("8"), Some(TestTime::Augmented { n: 8, beta: 0.25 }));
        assert_eq!(TestTime::named("corners"), None);
        assert!(TestTime::Augmented { n: 0, beta: 0.25 }.check().is_err());
        let error = TestTime::Augmented { n: 4, beta: 2.0 }.check().unwrap_err().to_string();
        assert!(error.contains("beta") && error.contains("0 to 1"), "{error}");
    }

    #[test]
    fn views_show_corners_and_mirror_images() {
        let data = (0..64).map(|i| (i / 8 * 16 + i % 8) as u8).collect();
        let image = Image::new(8, 8, 1, data).unwrap();
        let views =
            TestTime::TenCrop.views(&Pipeline::eval(0.5, Interpolation::Bilinear), &Pipeline::train());
        // The image has 8 pixels, 4 / 0.5 too: corners are exact.
        let first = |view: &View| {
            let shown = view.pipeline.apply(&image, Size::square(4), Key::new(0, view.epoch, 0)).unwrap();
            shown.pixel(0, 0)[0]
        };
        assert_eq!(views.iter().map(first).collect::<Vec<_>>(), [34, 0, 4, 64, 68, 37, 3, 7, 67, 71]);
    }

    #[test]
    fn augmented_views_differ() {
        let image = Image::new(64, 64, 1, (0..64 * 64).map(|i| (i % 251) as u8).collect()).unwrap();
        let train = Pipeline::train();
        let kind = TestTime::Augmented { n: 3, beta: 0.25 };
        let shown: Vec<_> = kind
            .views(&Pipeline::eval(0.875, Interpolation::Bilinear), &train)
            .iter()
            .map(|v| v.pipeline.apply(&image, Size::square(16), Key::new(0, v.epoch, 5)).unwrap().into_data())
            .collect();
        assert!((0..4).all(|i| (0..i).all(|j| shown[i] != shown[j])));
    }
}
