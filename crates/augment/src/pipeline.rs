//! A list of operations, checked and applied.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::{Error, Image, Interpolation, Key, Op, RandomResizedCrop, Resize, Size};

/// Operations in their order. Plain data: a TOML or JSON list of tables with one key each.
///
/// At most one operation sets the size ([`Op::sets_size`]). Where none does, the image is first resized and cut
/// in the middle to the size of the run, losing only what is outside of its shape.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Pipeline(pub Vec<Op>);

impl Pipeline {
    /// The usual augmentation for training: random resized crop, horizontal flip.
    pub fn train() -> Self {
        Self(vec![
            Op::RandomResizedCrop(RandomResizedCrop::default()),
            Op::FlipHorizontal(Default::default()),
        ])
    }

    /// The usual transform for evaluation: shorter side to `size / crop`, the middle of it.
    pub fn eval(crop: f64, interpolation: Interpolation) -> Self {
        Self(vec![Op::Resize(Resize { crop, interpolation, ..Resize::default() })])
    }

    /// Whether every parameter is in its range and at most one operation sets the size.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::TwoSizes`], the first of them.
    pub fn check(&self) -> Result<(), Error> {
        let mut sized = None;
        for (index, op) in self.0.iter().enumerate() {
            op.check(&Check { index, op: op.name() })?;
            if op.sets_size() {
                if let Some(first) = sized {
                    return Err(Error::TwoSizes { first, second: index });
                }
                sized = Some(index);
            }
        }
        Ok(())
    }

    /// Whether the result depends on the key at all. What does not can be computed once and kept.
    pub fn is_random(&self) -> bool {
        self.0.iter().any(Op::is_random)
    }

    /// The image of `size` that this pipeline makes of `image` for the sample `key` (whose `op` is ignored).
    ///
    /// Operation `i` uses the numbers of `key.op(i)` and no others.
    ///
    /// # Errors
    /// What [`Pipeline::check`] finds, and [`Error::Resize`] for a size of zero.
    pub fn apply(&self, image: &Image, size: Size, key: Key) -> Result<Image, Error> {
        self.check()?;
        let mut current = None;
        if !self.0.iter().any(Op::sets_size) {
            let whole = Op::Resize(Resize { crop: 1.0, ..Resize::default() });
            current = Some(whole.apply(image, size, &mut key.random())?);
        }
        for (index, op) in self.0.iter().enumerate() {
            let random = &mut key.op(index as u64).random();
            current = Some(match current {
                Some(mut before) if !op.sets_size() => {
                    op.change(&mut before, random);
                    before
                }
                before => op.apply(before.as_ref().unwrap_or(image), size, random)?,
            });
        }
        Ok(current.expect("an operation sets the size, or the default did"))
    }
}
