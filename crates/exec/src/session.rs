//! What a trainer sees of a backend: an [`Engine`] opens a network, a [`Session`] trains and runs it.

use std::sync::Arc;
use std::time::Duration;

use defrost_graph::{Graph, Loss, Marking, NodeId, ParamId, ParamStore, Pass};
use defrost_plan::{Options, Plan};
use defrost_tensor::{HostTensor, PixelScale};

use crate::ExecError;

/// Where the buffers of a device lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Room {
    /// In the memory of this machine.
    Host,
    /// In its own.
    Device {
        /// Bytes that it may take, where that is known before they are asked for.
        bytes: Option<usize>,
    },
}

/// A backend on one device.
pub trait Engine: Send + Sync {
    /// The device in words, as in "cpu (2 threads, AVX-512)".
    fn device(&self) -> String;

    /// Where its buffers lie.
    fn room(&self) -> Room {
        Room::Host
    }

    /// Bytes in which it stores an activation's element: what [`Options::storing`] of a plan made for it is.
    fn activation_bytes(&self) -> usize {
        4
    }

    /// Whether its buffers can be cut and joined, so that plans take less memory with [`Options::pack`].
    fn packs(&self) -> bool {
        false
    }

    /// Puts a network with these weights on the device.
    ///
    /// # Errors
    /// No room, a lost device.
    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> Result<Box<dyn Session>, ExecError>;

    /// The same with weights that nobody needs any more: where buffers lie in this machine's memory, the host's copy goes as
    /// the device's comes, so that both together never take much more than one does.
    ///
    /// # Errors
    /// As [`Engine::open`].
    fn open_owned(&self, graph: Arc<Graph>, params: ParamStore) -> Result<Box<dyn Session>, ExecError> {
        self.open(graph, &params)
    }
}

/// The pictures of a batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Images<'a> {
    /// `n, h, w, c` bytes and how they become numbers.
    Pixels(&'a [u8], &'a PixelScale),
    /// `n, c, h, w` numbers, already preprocessed.
    Array(&'a [f32]),
    /// What [`Session::features`] gave for these images, in its order: the prefix is skipped.
    Features(&'a [f32]),
}

/// A training batch.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// Images.
    pub n: usize,
    /// The images.
    pub images: Images<'a>,
    /// `[n, classes]`. For cross-entropy and the focal loss, what each class weighs in each row: labels, smoothing, class
    /// weights and, since the loss is a sum, the division that makes a mean of it
    /// ([`SoftmaxCrossEntropy`](defrost_tensor::call::SoftmaxCrossEntropy)). For the other losses the numbers that the
    /// outputs should be ([`ElementwiseLoss`](defrost_tensor::call::ElementwiseLoss)).
    pub targets: &'a [f32],
    /// `[n, classes]` for losses that treat each output alone, what each output's loss counts: class weights, 0 for labels
    /// that are not known, and the division that makes a mean. Not read for cross-entropy and the focal loss.
    pub weights: &'a [f32],
    /// `[n, 2]` whole numbers below 2²⁴ for dropout, from (seed, epoch, sample).
    pub keys: &'a [f32],
}

/// What a step reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// The loss, summed over the batch.
    pub loss: f64,
    /// Rows that are right. One class an image: the largest logit is where the row's target is largest and above 0.
    /// Several labels: each known label is on the right side of ½. Numbers: always 0.
    pub hits: usize,
}

/// What a phase trains, on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// What trains and what batch normalisation does.
    pub marking: Marking,
    /// The loss.
    pub loss: Loss,
    /// The planner's optional passes.
    pub options: Options,
}

/// The update rule of an optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// See [`defrost_tensor::call::Sgd`]. With momentum, the velocity is kept as `first`.
    Sgd {
        /// Momentum; 0 for none.
        momentum: f32,
        /// Nesterov's variant.
        nesterov: bool,
    },
    /// See [`defrost_tensor::call::Adam`]. The moments are kept as `first` and `second`.
    Adam {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// Decoupled weight decay (AdamW).
        decoupled: bool,
    },
    /// See [`defrost_tensor::call::RmsProp`]. The squared gradient's average is kept as `second`, with momentum the velocity
    /// as `first`, where centred the gradient's average as `third`.
    RmsProp {
        /// Smoothing of the squared gradient.
        alpha: f32,
        /// Added to its root.
        eps: f32,
        /// Momentum; 0 for none.
        momentum: f32,
        /// Whether the variance is used instead of the square.
        centered: bool,
    },
    /// See [`defrost_tensor::call::Lamb`]; a parameter is a layer. The moments are kept as `first` and `second`.
    Lamb {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the root of the second moment.
        eps: f32,
        /// All gradients together are scaled down to this norm before the step, and stay so ([`Session::grads`]). timm's
        /// default is 1.
        max_grad_norm: Option<f32>,
    },
}

impl Rule {
    /// Values the rule keeps for each value it updates.
    pub fn state(&self) -> usize {
        self.keeps().into_iter().filter(|k| *k).count()
    }

    /// Whether it keeps `first`, `second` and `third`.
    pub(crate) fn keeps(&self) -> [bool; 3] {
        match *self {
            Self::Sgd { momentum, .. } => [momentum != 0.0, false, false],
            Self::Adam { .. } | Self::Lamb { .. } => [true, true, false],
            Self::RmsProp { momentum, centered, .. } => [momentum != 0.0, true, centered],
        }
    }
}

/// A limit on gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// The 2-norm of all gradients together, as PyTorch's `clip_grad_norm_`: each is multiplied by
    /// `min(1, max / (norm + 1e-6))`.
    Norm(f32),
    /// Each value, on either side of 0, as PyTorch's `clip_grad_value_`.
    Value(f32),
}

/// The rates of one parameter in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Which.
    pub param: ParamId,
    /// Learning rate.
    pub lr: f32,
    /// Weight decay.
    pub weight_decay: f32,
}

/// How long one kernel took for one node, summed over all steps since profiling was switched on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KernelTime {
    /// The node; `None` for what belongs to none, as the optimizer's update.
    pub node: Option<NodeId>,
    /// The part of the step.
    pub pass: Option<Pass>,
    /// The kernel's name, as in "conv2d_grad_input".
    pub kernel: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Floating-point operations of all calls, 0 where they do not matter.
    pub flops: u64,
    /// All calls together.
    pub time: Duration,
}

/// A network on a device. All methods that return results wait until they are there; a step is three calls:
/// [`Session::forward_backward`], [`Session::reduce`], [`Session::apply`]. The first is three itself where the next batch is
/// at hand before the loss of this one: [`Session::stage`], [`Session::start`], [`Session::finish`].
pub trait Session {
    /// The network.
    fn graph(&self) -> &Arc<Graph>;

    /// Starts a phase: what trains, on which loss. Parameters and optimizer state stay where they are.
    ///
    /// # Errors
    /// A marking that leaves nothing to train.
    fn begin(&mut self, phase: Phase) -> Result<(), ExecError>;

    /// The plan of the current phase for a batch of `n`.
    ///
    /// # Errors
    /// No phase, or one that cannot be planned for `n`.
    fn plan(&mut self, n: usize) -> Result<&Plan, ExecError>;

    /// Copies a batch to the device, for [`Session::start`]. Where a step was started and not finished, the copy is made
    /// while the device is at it: the batches of a run come to a device that always has work as
    ///
    /// ```text
    /// stage(0); start; stage(1); finish; start; stage(2); finish; …
    /// ```
    ///
    /// What was staged and not started is forgotten.
    ///
    /// # Errors
    /// A batch that does not fit the network; no room; a lost device.
    fn stage(&mut self, batch: &TrainBatch<'_>) -> Result<(), ExecError>;

    /// Gives the device the passes over the batch that was staged, without waiting for them. Where the phase uses gradients up
    /// as they are made ([`Options::apply`]), its parameters are stepped by `rule` and `rates` in them; elsewhere
    /// [`Session::reduce`] and [`Session::apply`] follow once the step is finished.
    ///
    /// # Errors
    /// [`ExecError::NothingStaged`]; no room; a lost device.
    fn start(&mut self, rule: Rule, rates: &[Rate]) -> Result<(), ExecError>;

    /// Waits for the loss of the step that was started last.
    ///
    /// # Errors
    /// [`ExecError::NothingStarted`]; a lost device.
    fn finish(&mut self) -> Result<StepOutput, ExecError>;

    /// Computes the loss and the gradients of what trains.
    ///
    /// # Errors
    /// A batch that does not fit the network; no room; a lost device.
    fn forward_backward(&mut self, batch: &TrainBatch<'_>) -> Result<StepOutput, ExecError>;

    /// Sums the gradients over all workers. One worker has nothing to do.
    ///
    /// # Errors
    /// A worker that is gone.
    fn reduce(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    /// The L2 norm of all gradients together.
    ///
    /// # Errors
    /// A lost device.
    fn grad_norm(&mut self) -> Result<f64, ExecError>;

    /// Limits the gradients. Returns the L2 norm that they had together before: all that is read back from the device, after
    /// the limiting was asked for.
    ///
    /// # Errors
    /// A lost device.
    fn clip(&mut self, clip: Clip) -> Result<f64, ExecError>;

    /// Updates each parameter of `rates` by `rule`; frozen ones in it are left alone. Where the phase accumulates,
    /// gradients start anew afterwards.
    ///
    /// # Errors
    /// A lost device.
    fn apply(&mut self, rule: Rule, rates: &[Rate]) -> Result<(), ExecError>;

    /// A whole step on one batch: [`Session::forward_backward`], [`Session::reduce`], [`Session::apply`]. Where the phase's
    /// options say so ([`Options::apply`]), each gradient is used up as soon as it is made, which takes less memory and leaves
    /// none to be read; the weights are the same. A rule that limits all gradients together does not go with that.
    ///
    /// # Errors
    /// As the three.
    fn step(&mut self, batch: &TrainBatch<'_>, rule: Rule, rates: &[Rate]) -> Result<StepOutput, ExecError> {
        let output = self.forward_backward(batch)?;
        self.reduce()?;
        self.apply(rule, rates)?;
        Ok(output)
    }

    /// The network's outputs in evaluation mode, `[n, classes]`. [`Images::Features`] are those of the current phase.
    ///
    /// # Errors
    /// As [`Session::forward_backward`].
    fn infer(&mut self, n: usize, images: Images<'_>) -> Result<Vec<f32>, ExecError>;

    /// The value at the current phase's cut, `[n, …]` in an order that [`Images::Features`] takes back.
    ///
    /// # Errors
    /// As [`Session::forward_backward`].
    fn features(&mut self, n: usize, images: Images<'_>) -> Result<Vec<f32>, ExecError>;

    /// For each stage of the network, in order, the mean over space of what it puts out in evaluation mode, `[n, c]`.
    /// From [`Images::Features`], stages that end before the cut, or at it, are empty.
    ///
    /// # Errors
    /// As [`Session::forward_backward`].
    fn stages(&mut self, n: usize, images: Images<'_>) -> Result<Vec<Vec<f32>>, ExecError>;

    /// The current weights and buffers.
    ///
    /// # Errors
    /// A lost device.
    fn params(&self) -> Result<ParamStore, ExecError>;

    /// Replaces all weights and buffers.
    ///
    /// # Errors
    /// Weights of another network.
    fn set_params(&mut self, params: &ParamStore) -> Result<(), ExecError>;

    /// Starts an average of weights and buffers from `start`, beside them on the device; `None` drops it.
    ///
    /// # Errors
    /// No room; weights of another network.
    fn set_average(&mut self, start: Option<&ParamStore>) -> Result<(), ExecError>;

    /// Takes the current weights and buffers into their average: each value moves towards the current one by the part
    /// `new` of what lies between (PyTorch's `lerp`). Without an average nothing happens.
    ///
    /// # Errors
    /// A lost device.
    fn average(&mut self, new: f32) -> Result<(), ExecError>;

    /// The average of the weights and buffers, where there is one.
    ///
    /// # Errors
    /// A lost device.
    fn averaged(&self) -> Result<Option<ParamStore>, ExecError>;

    /// Exchanges weights and buffers with their average, so that what is evaluated is the average; a second call undoes
    /// it. Without an average nothing happens.
    fn swap_average(&mut self);

    /// The gradients of the last step, as clipped if they were, by parameter name, in the table's order.
    ///
    /// # Errors
    /// A lost device.
    fn grads(&self) -> Result<Vec<(String, HostTensor)>, ExecError>;

    /// The optimizer's state by name, in the table's order: `fc.weight.first`, `….second`, `….third` where the [`Rule`] keeps
    /// them, and `….step`, the number of steps taken.
    ///
    /// # Errors
    /// A lost device.
    fn optimizer(&self) -> Result<Vec<(String, HostTensor)>, ExecError>;

    /// Replaces the optimizer's state; an empty one starts it anew.
    ///
    /// # Errors
    /// State of another network.
    fn set_optimizer(&mut self, state: &[(String, HostTensor)]) -> Result<(), ExecError>;

    /// Gives back the memory that values of plans lie in, where they are pieces of one buffer ([`Options::pack`]). The next
    /// step or evaluation takes it anew. For what needs much memory for a moment between them.
    fn release(&mut self) {}

    /// Starts to time every kernel, or stops. Timing waits for the device after each call.
    fn set_profiling(&mut self, on: bool);

    /// What was timed since profiling was last switched on, in the order of first calls.
    fn profile(&self) -> Vec<KernelTime>;
}
