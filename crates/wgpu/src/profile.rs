//! How long each kernel takes, by timestamps that the device writes.

use std::collections::BTreeMap;

use defrost_tensor::KernelError;
use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, CommandEncoder, ComputePassTimestampWrites, MapMode, QuerySet,
    QuerySetDescriptor, QueryType,
};

use crate::gpu::Gpu;

/// How long one kernel of one call took since the profile began.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct KernelTime {
    /// The call, as in "conv2d".
    pub call: &'static str,
    /// The shader.
    pub kernel: &'static str,
    /// How often it ran.
    pub count: usize,
    /// Seconds altogether.
    pub seconds: f64,
}

/// Timestamps before and after each dispatch of a command buffer.
pub(crate) struct Profiler {
    queries: QuerySet,
    resolved: Buffer,
    readable: Buffer,
    /// What the pending timestamps belong to.
    names: Vec<(&'static str, &'static str)>,
    times: BTreeMap<(&'static str, &'static str), (usize, f64)>,
}

/// As many as a command buffer has dispatches, twice.
const QUERIES: u32 = 256;

impl Profiler {
    pub(crate) fn new(device: &wgpu::Device) -> Self {
        let buffer = |usage| {
            let size = u64::from(QUERIES) * 8;
            device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        Self {
            queries: device.create_query_set(&QuerySetDescriptor {
                label: None,
                ty: QueryType::Timestamp,
                count: QUERIES,
            }),
            resolved: buffer(BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC),
            readable: buffer(BufferUsages::COPY_DST | BufferUsages::MAP_READ),
            names: Vec::new(),
            times: BTreeMap::new(),
        }
    }

    /// Where a pass writes its times.
    pub(crate) fn time(
        &mut self,
        call: &'static str,
        kernel: &'static str,
    ) -> ComputePassTimestampWrites<'_> {
        let at = 2 * self.names.len() as u32;
        self.names.push((call, kernel));
        ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        }
    }

    pub(crate) fn resolve(&self, encoder: &mut CommandEncoder) {
        if self.names.is_empty() {
            return;
        }
        let count = 2 * self.names.len() as u32;
        encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, u64::from(count) * 8);
    }

    /// Reads what the submitted command buffer wrote.
    pub(crate) fn collect(&mut self, gpu: &Gpu) -> Result<(), KernelError> {
        if self.names.is_empty() {
            return Ok(());
        }
        let slice = self.readable.slice(..self.names.len() as u64 * 16);
        slice.map_async(MapMode::Read, |_| ());
        gpu.wait()?;
        let view = slice.get_mapped_range().map_err(|e| gpu.refused("to be read", e.to_string()))?;
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        for (names, pair) in self.names.drain(..).zip(view.chunks(16)) {
            let [start, end] = [0, 8]
                .map(|at| u64::from_le_bytes(pair[at..at + 8].try_into().expect("eight bytes a timestamp")));
            let (count, seconds) = self.times.entry(names).or_default();
            *count += 1;
            *seconds += end.saturating_sub(start) as f64 * period;
        }
        drop(view);
        self.readable.unmap();
        Ok(())
    }

    /// The times so far, the longest first; they start anew.
    pub(crate) fn take(&mut self) -> Vec<KernelTime> {
        let times = std::mem::take(&mut self.times).into_iter();
        let mut times: Vec<_> = times
            .map(|((call, kernel), (count, seconds))| KernelTime { call, kernel, count, seconds })
            .collect();
        times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        times
    }
}
