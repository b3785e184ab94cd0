//! Where the time of training steps went, summed up over the epochs of a phase.

use std::collections::HashMap;

use defrost_exec::{KernelTime, Session};
use defrost_graph::{Graph, NodeId, Pass};
use serde::{Deserialize, Serialize};

/// Where the time of a phase's training steps went. Validation and the filling of a cache are not in it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Profile {
    /// Which phase.
    pub phase: usize,
    /// Training steps.
    pub steps: usize,
    /// Images of these steps.
    pub images: usize,
    /// Seconds of all of them.
    pub seconds: f64,
    /// Those of them that steps waited for images.
    pub waited: f64,
    /// Each kernel of each node, in the order of a step.
    pub kernels: Vec<KernelSeconds>,
}

impl Profile {
    /// Seconds that neither a kernel took nor the wait for images: targets, copies between host and device, clocks.
    pub fn rest(&self) -> f64 {
        let kernels: f64 = self.kernels.iter().map(|k| k.seconds).sum();
        (self.seconds - self.waited - kernels).max(0.0)
    }
}

/// One kernel of one node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct KernelSeconds {
    /// The node's name; absent for what belongs to none, as the optimizer's update.
    pub node: Option<String>,
    /// The stage that the node is in.
    pub stage: Option<String>,
    /// `forward`, `loss`, `recompute`, `backward`, or `setup` for what is done once; absent where the node is.
    pub pass: Option<String>,
    /// The kernel's name.
    pub kernel: String,
    /// How often it ran.
    pub calls: u64,
    /// Floating-point operations of all calls; 0 where they do not matter.
    pub flops: u64,
    /// Seconds of all calls.
    pub seconds: f64,
}

/// A profile that is being taken.
#[derive(Debug, Default)]
pub(crate) struct Profiler {
    rows: Vec<KernelTime>,
    places: HashMap<(Option<NodeId>, Option<Pass>, &'static str), usize>,
    steps: usize,
    images: usize,
    seconds: f64,
    waited: f64,
}

impl Profiler {
    /// Takes in a step.
    pub(crate) fn step(&mut self, images: usize, seconds: f64, waited: f64) {
        self.steps += 1;
        self.images += images;
        self.seconds += seconds;
        self.waited += waited;
    }

    /// Takes in what `session` timed, and ends its timing.
    pub(crate) fn collect(&mut self, session: &mut dyn Session) {
        for row in session.profile() {
            let at = *self.places.entry((row.node, row.pass, row.kernel)).or_insert(self.rows.len());
            match self.rows.get_mut(at) {
                Some(sum) => {
                    sum.calls += row.calls;
                    sum.flops += row.flops;
                    sum.time += row.time;
                }
                None => self.rows.push(row),
            }
        }
        session.set_profiling(false);
    }

    /// The profile of `phase` of a network; `None` where nothing was timed.
    pub(crate) fn finish(self, phase: usize, graph: &Graph) -> Option<Profile> {
        let row = |row: &KernelTime| {
            let node = row.node.map(|id| graph.node(id));
            KernelSeconds {
                node: node.map(|n| n.name.clone()),
                stage: node.map(|n| graph.stages()[graph.blocks()[n.block].stage].name.clone()),
                pass: row.pass.map(|pass| format!("{pass:?}").to_lowercase()),
                kernel: row.kernel.to_owned(),
                calls: row.calls,
                flops: row.flops,
                seconds: row.time.as_secs_f64(),
            }
        };
        (self.steps > 0).then(|| Profile {
            phase,
            steps: self.steps,
            images: self.images,
            seconds: self.seconds,
            waited: self.waited,
            kernels: self.rows.iter().map(row).collect(),
        })
    }
}
