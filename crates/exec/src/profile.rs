//! Where a step's time goes: one clock a kernel and node.

use std::collections::HashMap;
use std::time::Instant;

use defrost_graph::{NodeId, Pass};

use crate::KernelTime;

/// Times of kernels, while profiling is on.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    rows: Vec<KernelTime>,
    places: HashMap<(Option<NodeId>, Option<Pass>, &'static str), usize>,
}

impl Profile {
    /// Adds a call that began at `start` and has just ended.
    pub(crate) fn add(
        &mut self,
        node: Option<NodeId>,
        pass: Option<Pass>,
        kernel: &'static str,
        flops: u64,
        start: Instant,
    ) {
        let time = start.elapsed();
        let at = *self.places.entry((node, pass, kernel)).or_insert_with(|| {
            self.rows.push(KernelTime { node, pass, kernel, calls: 0, flops: 0, time: Default::default() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.calls += 1;
        row.flops += flops;
        row.time += time;
    }

    /// All rows, in the order of first calls.
    pub(crate) fn rows(&self) -> Vec<KernelTime> {
        self.rows.clone()
    }
}
