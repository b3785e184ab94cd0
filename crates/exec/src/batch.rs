//! A batch's way: to the device, through a training step, and its loss back.

use std::sync::Arc;

use defrost_graph::{Graph, Origin};
use defrost_tensor::{Kernels, Layout};

use crate::buffers::check;
use crate::compiled::Folds;
use crate::interpreter::{Interpreter, Key, Stepping};
use crate::{ExecError, Images, StepOutput, TrainBatch};

/// A batch that lies where the plan of `key` reads it.
pub(crate) struct Staged {
    key: Key,
    /// Whether it lies at the cut, so that the prefix is to be skipped.
    skip: bool,
}

impl<K: Kernels> Interpreter<K> {
    /// Writes `batch` to where the plan of `key` reads it. Devices do their work in order: where a step was started and not
    /// finished, what it reads is overwritten after its passes.
    pub(crate) fn put(&mut self, key: Key, batch: &TrainBatch<'_>) -> Result<(), ExecError> {
        self.staged = None;
        self.prepare(key)?;
        self.upload(key, Origin::Targets, "targets", batch.targets)?;
        self.upload(key, Origin::TargetWeights, "weights of targets", batch.weights)?;
        self.upload(key, Origin::Keys, "dropout keys", batch.keys)?;
        let skip = self.feed(key, batch.images)?;
        self.staged = Some(Staged { key, skip });
        Ok(())
    }

    /// Gives the device the passes over the batch that is staged, and the optimizer's steps where it is to step.
    pub(crate) fn go(&mut self, stepping: Stepping<'_>) -> Result<(), ExecError> {
        let Staged { key, skip } = self.staged.take().ok_or(ExecError::NothingStaged)?;
        self.prepare(key)?; // Weights may have been loaded since.
        if !skip {
            self.run_front(key)?;
            self.run(key, |c| (&c.prefix, &c.plan.prefix), None)?;
        }
        self.run(key, |c| (&c.suffix, &c.plan.suffix), stepping)?;
        self.version += 1; // Running statistics may have taken the batch in.
        self.started = Some(key);
        Ok(())
    }

    /// Waits for the loss of what was started.
    pub(crate) fn output(&mut self) -> Result<StepOutput, ExecError> {
        let key = self.started.take().ok_or(ExecError::NothingStarted)?;
        let place = self.plans[&key].find(Origin::Stats).expect("a training plan has a loss");
        let mut stats = [0.0; 2];
        let kernels = Arc::clone(&self.kernels);
        kernels.download(Layout::Plain(2), self.buffer_mut(key, place), &mut stats)?;
        Ok(StepOutput { loss: f64::from(stats[0]), hits: stats[1] as usize })
    }

    /// Makes sure that what trains has gradients of its own, where they were used up as they were made so far.
    pub(crate) fn keep_gradients(&mut self) -> Result<(), ExecError> {
        let Some(phase) = self.phase.as_ref() else { return Ok(()) };
        for (id, grad) in self.graph.param_ids().zip(&mut self.grads) {
            if phase.marking.params.trains(id) && grad.is_none() {
                *grad = Some(self.kernels.alloc(self.graph.param(id).layout())?);
            }
        }
        Ok(())
    }

    /// Whether the phase uses gradients up as they are made.
    pub(crate) fn applies(&self) -> bool {
        self.phase.as_ref().is_some_and(|p| p.options.apply && !p.options.accumulate)
    }

    /// Drops all plans, and with them what lies in their buffers.
    pub(crate) fn forget_plans(&mut self) {
        self.plans.clear();
        self.folds = Folds::default();
        (self.staged, self.started) = (None, None);
    }

    /// Writes the batch's images to where the plan reads them. Returns whether the prefix is to be skipped.
    pub(crate) fn feed(&mut self, key: Key, images: Images<'_>) -> Result<bool, ExecError> {
        let n = key.0;
        let compiled = &self.plans[&key];
        let (place, layout) = match images {
            Images::Features(_) => compiled.place(compiled.plan.cut_value),
            _ => {
                let shape = self.graph.input_shape().with_batch(n);
                match compiled.find(Origin::Input) {
                    Some(place) => (place, Layout::Activation(shape)),
                    None => return Ok(false),
                }
            }
        };
        let kernels = Arc::clone(&self.kernels);
        match images {
            Images::Pixels(pixels, scale) => {
                check("pixels", n, layout.len(), pixels.len())?;
                let Layout::Activation(shape) = layout else { return Ok(false) };
                if scale.is_image(shape) {
                    check("pixel scale", n, shape.c, scale.scale.len())?;
                    let values = scale.apply(shape, pixels);
                    kernels.upload(layout, &values, self.buffer_mut(key, place))?;
                    return Ok(false);
                }
                check("pixel scale", n, shape.c, scale.scale.len().min(scale.shift.len()))?;
                kernels.upload_pixels(shape, pixels, scale, self.buffer_mut(key, place))?;
            }
            Images::Array(values) | Images::Features(values) => {
                let what = if matches!(images, Images::Array(_)) { "image values" } else { "features" };
                check(what, n, layout.len(), values.len())?;
                kernels.upload(layout, values, self.buffer_mut(key, place))?;
            }
        }
        // Where the cut is the input, features are the pictures.
        let cut = self.plans[&key].plan.cut;
        Ok(matches!(images, Images::Features(_)) && cut != Graph::INPUT)
    }

    /// Writes `values` to the plan's `origin`, if it reads one.
    fn upload(
        &mut self,
        key: Key,
        origin: Origin,
        what: &'static str,
        values: &[f32],
    ) -> Result<(), ExecError> {
        let Some(place) = self.plans[&key].find(origin) else { return Ok(()) };
        let len = match origin {
            Origin::Keys => 2 * key.0,
            _ => self.graph.classes() * key.0,
        };
        check(what, key.0, len, values.len())?;
        let kernels = Arc::clone(&self.kernels);
        Ok(kernels.upload(Layout::Plain(len), values, self.buffer_mut(key, place))?)
    }
}
