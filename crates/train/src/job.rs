//! What a run is given, and what it gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use defrost_augment::{Pipeline, Size};
use defrost_data::Dataset;
use defrost_graph::{Graph, ParamStore};
use defrost_policy::{Phase, Recipe};
use defrost_tensor::PixelScale;

use crate::{Aspect, Done, Epoch, Event, SourceTask, Stopped, Validation};

/// Everything that decides the result of a run. The same job gives the same bits, interrupted or not, whatever the
/// number of threads.
#[derive(Clone, Debug)]
pub struct Job {
    /// The network.
    pub graph: Arc<Graph>,
    /// The weights that it starts from.
    pub params: ParamStore,
    /// The recipe.
    pub recipe: Recipe,
    /// The recipe resolved against the network: `recipe.resolve(&graph)`.
    pub phases: Vec<Phase>,
    /// What is trained on.
    pub train: Arc<Dataset>,
    /// What is measured on; may be empty, then the last epoch counts as the best.
    pub val: Arc<Dataset>,
    /// The task that the weights come from, where its images and its head are at hand: how well it is still solved is
    /// measured after each epoch.
    pub source: Option<SourceTask>,
    /// How pixels become the network's input.
    pub pixels: PixelScale,
    /// The transform for evaluation.
    pub eval: Pipeline,
    /// What the network is made from as JSON, for checkpoints: whoever reads one builds the network by it.
    pub spec: String,
    /// The preprocessing as JSON, for checkpoints.
    pub preprocess: String,
}

impl Job {
    /// Height and width of the network's input.
    pub fn size(&self) -> Size {
        let shape = self.graph.input_shape();
        Size { width: shape.w, height: shape.h }
    }

    /// Epochs of all phases together.
    pub fn epochs(&self) -> usize {
        self.phases.iter().map(|p| p.epochs).sum()
    }
}

/// What changes how a run goes about its work, never its result.
pub struct Options<'a> {
    /// Set from outside (Ctrl-C, SIGTERM): the step is finished, everything saved, and the run returns.
    pub stop: Option<&'a AtomicBool>,
    /// Called with every event.
    pub on_event: Box<dyn FnMut(&Event) + 'a>,
    /// Threads that decode and augment; `None` as many as the loader thinks right.
    pub loader_threads: Option<usize>,
    /// Bytes of decoded images that are kept from epoch to epoch
    /// ([`LoaderOptions::cache_bytes`](defrost_data::LoaderOptions::cache_bytes)); a quarter as many of those that are measured on.
    pub image_cache: u64,
    /// How often everything is saved within an epoch; `None`: at its end only.
    pub save_every: Option<Duration>,
    /// An epoch that ends sooner than this after everything was last saved is not saved by itself.
    pub save_pause: Duration,
    /// In what a resumed run may differ from the one that was interrupted.
    pub accept: Vec<Aspect>,
    /// The planner's optional passes.
    pub plan: defrost_exec::Options,
    /// Bytes that a phase may take. One that needs more computes activations again in the backward pass, where its recipe
    /// leaves that open ([`Recompute::Auto`](defrost_policy::Recompute)); `None`: as many as it needs.
    pub memory: Option<usize>,
    /// Whether each kernel of training steps is timed ([`Event::Profile`]). Timing waits for the device after each call.
    pub profile: bool,
}

impl Default for Options<'_> {
    /// No stop, no callback, 256 MB of images, saving every five minutes and not
    /// more often than every two seconds.
    fn default() -> Self {
        Self {
            stop: None,
            on_event: Box::new(|_| ()),
            loader_threads: None,
            image_cache: 256 << 20,
            save_every: Some(Duration::from_secs(300)),
            save_pause: Duration::from_secs(2),
            accept: Vec::new(),
            plan: defrost_exec::Options::default(),
            memory: None,
            profile: false,
        }
    }
}

impl Options<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.is_some_and(|s| s.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("accept", &self.accept)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Ending {
    /// All phases are done.
    Done(Done),
    /// It was stopped from outside and can be resumed.
    Stopped(Stopped),
}

/// What a run gives back. Its weights are in the run's folder: [`Folder::load`](crate::Folder::load).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// All epochs, those before an interruption included.
    pub history: Vec<Epoch>,
    /// What the best weights make of the validation part; absent without one or where the run was stopped.
    pub validation: Option<Validation>,
}
