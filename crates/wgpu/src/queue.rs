//! Dispatches are recorded into one command buffer and submitted a few times a step.
//!
//! A step is the same calls over the same buffers every time, so pipelines and bind groups are looked up by what they are
//! made of and made once. A dispatch's numbers lie in a uniform buffer that all dispatches of a command buffer share,
//! each at its own offset; it is written once a submission.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use defrost_tensor::KernelError;
use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingResource, BindingType, Buffer, BufferBinding, BufferBindingType,
    BufferDescriptor, BufferSize, BufferUsages, CommandEncoder, ComputePass, ComputePassDescriptor,
    ComputePipeline, ComputePipelineDescriptor, ErrorFilter, Limits, PipelineCompilationOptions,
    PipelineLayout, PipelineLayoutDescriptor, ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

use crate::buffer::{Span, WgpuBuf};
use crate::gpu::Gpu;
use crate::profile::Profiler;
use crate::shader::{Define, Source, Variant};

/// Bytes of numbers a dispatch may have.
const WORDS: usize = 64;
/// Dispatches that share a command buffer at most. A GPU starts on a step while the rest of it is still being recorded.
const DISPATCHES: usize = 128;
/// Floating-point operations in a command buffer at most: drivers reset a GPU that is busy with one for seconds.
const OPERATIONS: f64 = 5e11;

/// The numbers of a dispatch: the shader's `Params`, without the eight offsets of its operands that come first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    words: [u32; WORDS],
    len: usize,
}

impl Words {
    pub(crate) fn new() -> Self {
        Self { words: [0; WORDS], len: 8 }
    }

    pub(crate) fn u(mut self, value: usize) -> Self {
        self.words[self.len] = u32::try_from(value).expect("buffers have fewer than 2^32 elements");
        self.len += 1;
        self
    }

    pub(crate) fn raw(mut self, value: u32) -> Self {
        self.words[self.len] = value;
        self.len += 1;
        self
    }

    pub(crate) fn i(self, value: isize) -> Self {
        self.raw(i32::try_from(value).expect("offsets fit in 32 bits") as u32)
    }

    pub(crate) fn f(self, value: f32) -> Self {
        self.raw(value.to_bits())
    }

    pub(crate) fn all(self, values: &[usize]) -> Self {
        values.iter().fold(self, |words, &v| words.u(v))
    }
}

/// One dispatch.
pub(crate) struct Job<'a> {
    pub(crate) source: &'static Source,
    pub(crate) width: usize,
    pub(crate) defines: &'a [Define],
    pub(crate) words: Words,
    /// The operands in the bindings' order, reads first; what is absent stays unused.
    pub(crate) reads: &'a [Option<Span<'a>>],
    pub(crate) writes: &'a [Option<Span<'a>>],
    pub(crate) groups: [u32; 3],
    /// Floating-point operations.
    pub(crate) operations: f64,
}

type GroupKey = Vec<[u64; 3]>;

/// What is recorded and cached for a device.
pub(crate) struct Recorder {
    encoder: Option<CommandEncoder>,
    pass: Option<ComputePass<'static>>,
    dispatches: usize,
    operations: f64,
    /// Bytes between the numbers of one dispatch and the next.
    stride: usize,
    numbers: Vec<u8>,
    uniform: Buffer,
    pipelines: HashMap<(&'static str, Variant), ComputePipeline>,
    layouts: HashMap<(usize, usize), (BindGroupLayout, PipelineLayout)>,
    groups: HashMap<((usize, usize), GroupKey), BindGroup>,
    /// Stands in for operands that are absent: some to read, some to write.
    dummies: Vec<Buffer>,
    staging: Option<Buffer>,
    workspaces: [Option<WgpuBuf>; 2],
    pixels: Option<WgpuBuf>,
    profiler: Option<Profiler>,
    /// What the profile calls what is recorded.
    pub(crate) call: &'static str,
}

impl Recorder {
    pub(crate) fn new(device: &wgpu::Device, limits: &Limits, profile: bool) -> Self {
        let stride = (WORDS * 4).next_multiple_of(limits.min_uniform_buffer_offset_alignment.max(1) as usize);
        let buffer = |size: usize, usage| {
            device.create_buffer(&BufferDescriptor {
                label: None,
                size: size as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            encoder: None,
            pass: None,
            dispatches: 0,
            operations: 0.0,
            stride,
            numbers: Vec::with_capacity(stride * DISPATCHES),
            uniform: buffer(stride * DISPATCHES, BufferUsages::UNIFORM | BufferUsages::COPY_DST),
            pipelines: HashMap::new(),
            layouts: HashMap::new(),
            groups: HashMap::new(),
            dummies: (0..8).map(|_| buffer(16, BufferUsages::STORAGE)).collect(),
            staging: None,
            workspaces: [None, None],
            pixels: None,
            profiler: profile.then(|| Profiler::new(device)),
            call: "",
        }
    }

    /// Records a dispatch.
    pub(crate) fn dispatch(&mut self, gpu: &Gpu, job: Job<'_>) -> Result<(), KernelError> {
        let mut words = job.words;
        let mut half = 0;
        let (reads, writes) = (job.source.reads, job.source.writes);
        debug_assert!(job.reads.len() == reads && job.writes.len() == writes, "{}", job.source.name);
        let mut key = GroupKey::with_capacity(reads + writes);
        for (i, span) in job.reads.iter().chain(job.writes).enumerate() {
            let Some(span) = span else {
                key.push([u64::MAX, 0, 16]);
                continue;
            };
            if !span.fits() {
                let name = job.source.name;
                let reason = format!("operand {i} of `{name}` is longer than its buffer");
                return Err(gpu.refused("a call", reason));
            }
            let window = span.window(gpu.max_binding, gpu.align);
            if window.size > gpu.max_binding {
                return Err(KernelError::OutOfMemory { device: gpu.name(), bytes: window.size as usize });
            }
            // In units of what the kernel indexes; it wraps, so that the sum with an index is right.
            words.words[i] = ((window.at as i32) / job.width as i32) as u32;
            half |= u32::from(span.buf.half) << (i + 1);
            key.push([span.buf.id, window.offset, window.size]);
        }
        let variant = Variant { width: job.width as u32, half, defines: job.defines.to_vec() };
        self.make_layout(gpu, (reads, writes));
        self.make_pipeline(gpu, job.source, &variant)?;
        if !self.groups.contains_key(&((reads, writes), key.clone())) {
            let group = self.make_group(gpu, &job, &key);
            self.groups.insert(((reads, writes), key.clone()), group);
        }

        let offset = self.numbers.len();
        self.numbers.extend_from_slice(bytemuck::cast_slice(&words.words));
        self.numbers.resize(offset + self.stride, 0);
        if self.profiler.is_some() {
            self.pass = None;
        }
        let encoder =
            self.encoder.get_or_insert_with(|| gpu.device.create_command_encoder(&Default::default()));
        let pass = self.pass.get_or_insert_with(|| {
            let timestamp_writes = self.profiler.as_mut().map(|p| p.time(self.call, job.source.name));
            encoder
                .begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes })
                .forget_lifetime()
        });
        pass.set_pipeline(&self.pipelines[&(job.source.name, variant)]);
        pass.set_bind_group(0, &self.groups[&((reads, writes), key)], &[offset as u32]);
        pass.dispatch_workgroups(job.groups[0], job.groups[1], job.groups[2]);
        self.dispatches += 1;
        self.operations += job.operations;
        let full = self.dispatches == DISPATCHES || self.operations > OPERATIONS;
        if full { self.submit(gpu) } else { Ok(()) }
    }

    /// Submits what is recorded.
    pub(crate) fn submit(&mut self, gpu: &Gpu) -> Result<(), KernelError> {
        self.pass = None;
        let Some(mut encoder) = self.encoder.take() else { return gpu.check() };
        if !self.numbers.is_empty() {
            gpu.queue.write_buffer(&self.uniform, 0, &self.numbers);
            self.numbers.clear();
        }
        if let Some(profiler) = &mut self.profiler {
            profiler.resolve(&mut encoder);
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.busy.store(true, Ordering::Relaxed);
        (self.dispatches, self.operations) = (0, 0.0);
        gpu.check()?;
        match &mut self.profiler {
            Some(profiler) => profiler.collect(gpu),
            None => Ok(()),
        }
    }

    /// Records a copy to the start of `dst`.
    pub(crate) fn copy(&mut self, gpu: &Gpu, src: &Buffer, offset: u64, dst: &Buffer, size: u64) {
        self.pass = None;
        let encoder =
            self.encoder.get_or_insert_with(|| gpu.device.create_command_encoder(&Default::default()));
        encoder.copy_buffer_to_buffer(src, offset, dst, 0, size);
    }

    /// A buffer of at least `len` bytes that the host can read.
    pub(crate) fn staging(&mut self, gpu: &Gpu, len: usize) -> Result<Buffer, KernelError> {
        if self.staging.as_ref().is_none_or(|b| b.size() < len as u64) {
            self.staging = None;
            let size = len.next_power_of_two().max(4096) as u64;
            let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
            let descriptor = BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            let (buffer, refused) =
                gpu.scoped(ErrorFilter::OutOfMemory, || gpu.device.create_buffer(&descriptor));
            if refused.is_some() {
                return Err(KernelError::OutOfMemory { device: gpu.name(), bytes: size as usize });
            }
            self.staging = Some(buffer);
        }
        Ok(self.staging.clone().expect("made above"))
    }

    /// Takes a workspace out, to be put back by [`Recorder::put_workspace`]: 0 or 1, of unspecified contents.
    pub(crate) fn take_workspace(&mut self, which: usize) -> Option<WgpuBuf> {
        self.workspaces[which].take()
    }

    pub(crate) fn put_workspace(&mut self, which: usize, buf: WgpuBuf) {
        self.workspaces[which] = Some(buf);
    }

    /// The same for the bytes of pictures.
    pub(crate) fn pixels(&mut self) -> &mut Option<WgpuBuf> {
        &mut self.pixels
    }

    /// Drops what is cached for buffers that are gone.
    pub(crate) fn forget(&mut self, dead: &[u64]) {
        self.groups.retain(|(_, key), _| !key.iter().any(|[id, ..]| dead.contains(id)));
    }

    /// How many pipelines and bind groups were made so far and are kept.
    pub(crate) fn cached(&self) -> (usize, usize) {
        (self.pipelines.len(), self.groups.len())
    }

    pub(crate) fn profiler(&mut self) -> Option<&mut Profiler> {
        self.profiler.as_mut()
    }

    fn make_layout(&mut self, gpu: &Gpu, (reads, writes): (usize, usize)) {
        if self.layouts.contains_key(&(reads, writes)) {
            return;
        }
        let entry = |binding, ty, has_dynamic_offset, size| BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: BufferSize::new(size) },
            count: None,
        };
        let mut entries = vec![entry(0, BufferBindingType::Uniform, true, WORDS as u64 * 4)];
        for i in 0..reads + writes {
            let ty = BufferBindingType::Storage { read_only: i < reads };
            entries.push(entry(i as u32 + 1, ty, false, 16));
        }
        let groups = gpu
            .device
            .create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipelines = gpu.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&groups)],
            immediate_size: 0,
        });
        self.layouts.insert((reads, writes), (groups, pipelines));
    }

    fn make_pipeline(
        &mut self,
        gpu: &Gpu,
        source: &'static Source,
        variant: &Variant,
    ) -> Result<(), KernelError> {
        let key = (source.name, variant.clone());
        if self.pipelines.contains_key(&key) {
            return Ok(());
        }
        let (pipeline, refused) = gpu.scoped(ErrorFilter::Internal, || {
            gpu.scoped(ErrorFilter::Validation, || {
                let module = gpu.device.create_shader_module(ShaderModuleDescriptor {
                    label: Some(source.name),
                    source: ShaderSource::Wgsl(source.text(variant).into()),
                });
                gpu.device.create_compute_pipeline(&ComputePipelineDescriptor {
                    label: Some(source.name),
                    layout: Some(&self.layouts[&(source.reads, source.writes)].1),
                    module: &module,
                    entry_point: Some("main"),
                    compilation_options: PipelineCompilationOptions {
                        constants: &[],
                        zero_initialize_workgroup_memory: false,
                    },
                    cache: None,
                })
            })
        });
        let (pipeline, invalid) = pipeline;
        if let Some(reason) = invalid.or(refused) {
            gpu.check()?;
            return Err(gpu.refused(format!("the shader `{}`", source.name), reason));
        }
        self.pipelines.insert(key, pipeline);
        Ok(())
    }

    fn make_group(&self, gpu: &Gpu, job: &Job<'_>, key: &GroupKey) -> BindGroup {
        let whole = |buffer, offset, size| {
            BindingResource::Buffer(BufferBinding { buffer, offset, size: BufferSize::new(size) })
        };
        let mut entries =
            vec![BindGroupEntry { binding: 0, resource: whole(&self.uniform, 0, WORDS as u64 * 4) }];
        for (i, (span, [_, offset, size])) in job.reads.iter().chain(job.writes).zip(key).enumerate() {
            let buffer = span.as_ref().map_or(&self.dummies[i], |span| &span.buf.raw);
            entries.push(BindGroupEntry { binding: i as u32 + 1, resource: whole(buffer, *offset, *size) });
        }
        let layout = &self.layouts[&(job.source.reads, job.source.writes)].0;
        gpu.device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WgpuOptions;

    #[test]
    fn a_shader_that_is_refused_is_named_and_the_device_goes_on() {
        static BROKEN: Source = Source { name: "broken", parts: &["fn main( {"], reads: 0, writes: 0 };
        let Some(kernels) = crate::testing::open(&WgpuOptions::default()) else { return };
        let job = Job {
            source: &BROKEN,
            width: 1,
            defines: &[],
            words: Words::new(),
            reads: &[],
            writes: &[],
            groups: [1, 1, 1],
            operations: 0.0,
        };
        let error = kernels.run(job).unwrap_err();
        assert!(
            matches!(&error, KernelError::Refused { what, .. } if what == "the shader `broken`"),
            "{error}"
        );
        kernels.gpu().check().unwrap();
    }
}
