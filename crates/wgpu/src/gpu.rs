//! An open device: buffers, uploads, downloads, and what went wrong.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use defrost_tensor::KernelError;
use wgpu::{
    BufferDescriptor, BufferUsages, DeviceDescriptor, ErrorFilter, Features, Limits, MapMode, MemoryHints,
    PollType,
};

use crate::adapter::{AdapterInfo, OpenError, choose};
use crate::buffer::{Ledger, WgpuBuf};
use crate::queue::Recorder;

/// How a device is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WgpuOptions {
    /// Which adapter: an index of [`adapters`](crate::adapters) or a part of a name; the fastest kind without it.
    pub adapter: Option<String>,
    /// Store activations in 16 bits and multiply them in 16 bits, where the adapter can. Sums, weights, gradients,
    /// statistics and optimizers stay in 32.
    pub half: bool,
    /// The most bytes to take on the device. Without it, as many as the driver gives.
    pub memory: Option<u64>,
    /// Matrix products by tiles in workgroup memory (GPUs) or by registers alone (software); the adapter's kind
    /// decides without it.
    pub tiles: Option<bool>,
    /// The largest part of a buffer to bind at once, in bytes, if the adapter's limit is not smaller.
    pub max_binding: Option<u64>,
    /// The most workgroups along one dimension of a dispatch, if the adapter's limit is not smaller.
    pub max_groups: Option<u32>,
    /// Measure how long each kernel takes, where the adapter can. Slower: kernels then run one by one.
    pub profile: bool,
}

/// Bytes that crossed between host and device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Values to the device: batches, weights.
    pub up: u64,
    /// Values from the device: losses, norms, weights for a checkpoint.
    pub down: u64,
    /// Of those to the device, what was given to it while it had work whose end nobody had waited for.
    pub during_work: u64,
}

/// What the driver reported since it was last asked.
#[derive(Debug, Default)]
struct Faults {
    lost: Option<String>,
    error: Option<String>,
}

/// An open device.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) info: AdapterInfo,
    pub(crate) limits: Limits,
    pub(crate) half: bool,
    /// Whether matrix products go through workgroup memory.
    pub(crate) tiles: bool,
    pub(crate) profile: bool,
    /// The largest window of a buffer in bytes, a multiple of 256.
    pub(crate) max_binding: u64,
    /// What windows begin at a multiple of.
    pub(crate) align: u64,
    pub(crate) memory: Option<u64>,
    up: AtomicU64,
    down: AtomicU64,
    during_work: AtomicU64,
    /// Whether work was submitted since the last wait.
    pub(crate) busy: AtomicBool,
    ledger: Arc<Ledger>,
    faults: Arc<Mutex<Faults>>,
    recorder: Mutex<Recorder>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("info", &self.info).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left at worst a call unrecorded, and its panic goes on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn open(options: &WgpuOptions) -> Result<Self, OpenError> {
        let (adapter, info) = choose(options.adapter.as_deref())?;
        if options.half && !info.half {
            return Err(OpenError::NoHalf { adapter: info.to_string() });
        }
        let mut features = Features::empty();
        features.set(Features::SHADER_F16, options.half);
        let profile = options.profile && info.timestamps;
        features.set(Features::TIMESTAMP_QUERY, profile);
        let limits = adapter.limits();
        let request = adapter.request_device(&DeviceDescriptor {
            label: Some("defrost"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: MemoryHints::MemoryUsage,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|e| OpenError::Refused { adapter: info.to_string(), reason: e.to_string() })?;

        let faults = Arc::new(Mutex::new(Faults::default()));
        let seen = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&seen).error.get_or_insert(one_line(&error));
        }));
        let seen = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}") } else { message };
            lock(&seen).lost.get_or_insert(message.trim().to_owned());
        });

        let mut limits = limits;
        let groups = &mut limits.max_compute_workgroups_per_dimension;
        *groups = options.max_groups.unwrap_or(u32::MAX).min(*groups);
        // A binding's size is 32 bits in shaders; windows are whole multiples of every alignment.
        let most = limits.max_storage_buffer_binding_size.min(u64::from(u32::MAX));
        let max_binding = options.max_binding.unwrap_or(u64::MAX).min(most) / 256 * 256;
        let ledger = Arc::new(Ledger::default());
        let recorder = Mutex::new(Recorder::new(&device, &limits, profile));
        let tiles = options.tiles.unwrap_or(info.kind != "CPU");
        let align = u64::from(limits.min_storage_buffer_offset_alignment).max(256);
        let memory = options.memory;
        let half = options.half;
        Ok(Self {
            device,
            queue,
            info,
            limits,
            half,
            tiles,
            profile,
            max_binding,
            align,
            memory,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            during_work: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            ledger,
            faults,
            recorder,
        })
    }

    /// The device in words.
    pub(crate) fn name(&self) -> String {
        let half = if self.half { ", f16" } else { "" };
        format!("wgpu {} ({}{half})", self.info.name, self.info.backend)
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.recorder)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let [up, down, during_work] =
            [&self.up, &self.down, &self.during_work].map(|bytes| bytes.load(Ordering::Relaxed));
        Traffic { up, down, during_work }
    }

    /// What the driver reported, as an error.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        let error = lock(&self.faults).error.take();
        if error.is_some() {
            // What a lost device is asked for is refused before it says, once its work is over, that it is lost.
            drop(self.device.poll(PollType::wait_indefinitely()));
        }
        if let Some(reason) = &lock(&self.faults).lost {
            return Err(KernelError::DeviceLost { device: self.name(), reason: reason.clone() });
        }
        match error {
            Some(reason) => Err(self.refused("a command", reason)),
            None => Ok(()),
        }
    }

    pub(crate) fn refused(&self, what: impl Into<String>, reason: String) -> KernelError {
        KernelError::Refused { device: self.name(), what: what.into(), reason }
    }

    /// Runs `f` and returns what the driver refused in it.
    pub(crate) fn scoped<T>(&self, filter: ErrorFilter, f: impl FnOnce() -> T) -> (T, Option<String>) {
        let scope = self.device.push_error_scope(filter);
        let value = f();
        (value, pollster::block_on(scope.pop()).map(|e| one_line(&e)))
    }

    /// A buffer of `len` 32-bit elements, zeroed.
    pub(crate) fn alloc(&self, len: usize) -> Result<WgpuBuf, KernelError> {
        let bytes = (len.max(4) as u64).saturating_mul(4).next_multiple_of(16);
        let full = || KernelError::OutOfMemory {
            device: self.name(),
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        {
            // What was dropped is freed once nothing recorded or cached holds it.
            let mut recorder = self.recorder();
            let dead = self.ledger.take_dead();
            if !dead.is_empty() {
                recorder.submit(self)?;
                recorder.forget(&dead);
            }
        }
        let taken = self.ledger.bytes();
        if bytes > self.limits.max_buffer_size || self.memory.is_some_and(|most| taken + bytes > most) {
            return Err(full());
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let descriptor = BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let create = || self.device.create_buffer(&descriptor);
        let (raw, refused) = self.scoped(ErrorFilter::OutOfMemory, create);
        self.check()?;
        match refused {
            Some(_) => Err(full()),
            None => Ok(WgpuBuf::new(raw, &self.ledger)),
        }
    }

    /// Writes bytes to a buffer, after all work given so far.
    pub(crate) fn write(&self, dst: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<(), KernelError> {
        self.recorder().submit(self)?;
        self.up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.busy.load(Ordering::Relaxed) {
            self.during_work.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        // The queue keeps a copy until the transfer is done: in parts, so that the copies stay small.
        for (i, part) in bytes.chunks(PART).enumerate() {
            self.queue.write_buffer(dst, offset + (i * PART) as u64, part);
            if part.len() == PART {
                self.queue.submit([]);
                self.wait()?;
            }
        }
        self.check()
    }

    /// Reads `bytes.len()` bytes from the start of a buffer, after all work given so far.
    pub(crate) fn read(&self, src: &wgpu::Buffer, bytes: &mut [u8]) -> Result<(), KernelError> {
        let mut recorder = self.recorder();
        self.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut at = 0;
        while at < bytes.len() {
            let len = (bytes.len() - at).min(PART);
            let staging = recorder.staging(self, len)?;
            let size = len.next_multiple_of(4) as u64;
            recorder.copy(self, src, at as u64, &staging, size);
            recorder.submit(self)?;
            let slice = staging.slice(..size);
            let (send, receive) = std::sync::mpsc::channel();
            slice.map_async(MapMode::Read, move |result| drop(send.send(result)));
            self.wait()?;
            let lost = |reason: String| KernelError::DeviceLost { device: self.name(), reason };
            // Where another thread's wait found the buffer mapped first, it says so a moment later than this one's returns.
            match receive.recv_timeout(TOLD) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.check().err().unwrap_or_else(|| lost(error.to_string()))),
                Err(error) => return Err(self.check().err().unwrap_or_else(|| lost(error.to_string()))),
            }
            match slice.get_mapped_range() {
                Ok(view) => bytes[at..at + len].copy_from_slice(&view[..len]),
                Err(error) => return Err(self.refused("to be read", error.to_string())),
            }
            staging.unmap();
            at += len;
        }
        self.check()
    }

    /// Waits for all that was submitted.
    pub(crate) fn wait(&self) -> Result<(), KernelError> {
        let waited = self.device.poll(PollType::wait_indefinitely());
        self.busy.store(false, Ordering::Relaxed);
        self.check()?;
        match waited {
            Ok(_) => Ok(()),
            Err(error) => Err(KernelError::DeviceLost { device: self.name(), reason: error.to_string() }),
        }
    }
}

/// How long a buffer that is mapped may take to say so.
const TOLD: Duration = Duration::from_secs(10);

/// Bytes that cross at once.
const PART: usize = 64 << 20;

/// An error on one line, with its causes.
fn one_line(error: &wgpu::Error) -> String {
    let text = match error {
        wgpu::Error::OutOfMemory { source } => format!("out of memory: {source}"),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            description.clone()
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
