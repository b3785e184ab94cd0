//! Running a network on images without training it.

use defrost_data::{Batches, Dataset, Loader};
use defrost_exec::{ExecError, Images, Session};
use defrost_tensor::PixelScale;

use crate::cache::Features;
use crate::{Outputs, Result, TrainError, Truth, softmax};

/// The network's answers to all images of `loader`, which should hand them out in order
/// ([`LoaderOptions::eval`](defrost_data::LoaderOptions::eval)). Where the network learned by a [`Scale`](crate::Scale),
/// [`Outputs::scale`] is to be set. `progress` is told the number of images done after each
/// batch.
///
/// # Errors
/// The data, the device; [`TrainError::NoImages`].
pub fn evaluate(
    session: &mut dyn Session,
    loader: &Loader,
    pixels: &PixelScale,
    progress: &mut dyn FnMut(usize),
) -> Result<Outputs> {
    let all = outputs(session, loader.dataset(), loader.epoch(0), pixels, &mut |done| {
        progress(done);
        true
    })?;
    match all {
        Some(outputs) if !outputs.samples.is_empty() => Ok(outputs),
        _ => Err(TrainError::NoImages { purpose: "measure on" }),
    }
}

/// The probabilities of all classes for `n` images, `[n, classes]`.
///
/// # Errors
/// Images that do not fit the network; the device.
pub fn predict(session: &mut dyn Session, n: usize, images: Images<'_>) -> Result<Vec<f32>> {
    let mut rows = session.infer(n, images)?;
    rows.chunks_exact_mut(session.graph().classes()).for_each(softmax);
    Ok(rows)
}

/// The answers to `batches` of `data`; `None` where `progress`, which is told the number of images done, did not go on.
pub(crate) fn outputs(
    session: &mut dyn Session,
    data: &Dataset,
    batches: Batches,
    pixels: &PixelScale,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Outputs>> {
    let mut all = Outputs { classes: session.graph().classes(), ..Outputs::default() };
    for batch in batches {
        let batch = batch?;
        if batch.n == 0 {
            continue;
        }
        all.logits.extend(session.infer(batch.n, Images::Pixels(&batch.pixels, pixels))?);
        all.samples.extend(batch.samples);
        if !progress(all.samples.len()) {
            return Ok(None);
        }
    }
    all.truth = Truth::of(data, &all.samples);
    Ok(Some(all))
}

/// The answers from cached features of images of `data`, `batch` at a time. `None` where the session only infers from
/// images.
pub(crate) fn cached_outputs(
    session: &mut dyn Session,
    data: &Dataset,
    features: &Features,
    batch: usize,
) -> Result<Option<Outputs>> {
    let mut all = Outputs { classes: session.graph().classes(), ..Outputs::default() };
    let images = features.samples.len();
    for first in (0..images).step_by(batch.max(1)) {
        let n = batch.min(images - first);
        match session.infer(n, Images::Features(features.slice(first, n))) {
            Ok(logits) => all.logits.extend(logits),
            Err(ExecError::Length { .. }) if first == 0 => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    all.samples.clone_from(&features.samples);
    all.truth = Truth::of(data, &all.samples);
    Ok(Some(all))
}
