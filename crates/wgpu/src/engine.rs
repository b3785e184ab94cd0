//! The engine: [`WgpuKernels`] behind [`Engine`].

use std::sync::Arc;

use defrost_exec::{Engine, ExecError, Interpreter, Room, Session};
use defrost_graph::{Graph, ParamStore};
use defrost_tensor::Kernels;

use crate::{OpenError, WgpuKernels, WgpuOptions};

/// A GPU as a device.
#[derive(Debug)]
pub struct WgpuEngine {
    kernels: Arc<WgpuKernels>,
}

impl WgpuEngine {
    /// Opens a GPU.
    ///
    /// # Errors
    /// No adapter, none of that name, one that cannot be opened.
    pub fn new(options: &WgpuOptions) -> Result<Self, OpenError> {
        Ok(Self { kernels: Arc::new(WgpuKernels::new(options)?) })
    }

    /// On a device that is open already.
    pub fn with_kernels(kernels: Arc<WgpuKernels>) -> Self {
        Self { kernels }
    }

    /// The kernels: their adapter and profile.
    pub fn kernels(&self) -> &Arc<WgpuKernels> {
        &self.kernels
    }
}

impl Engine for WgpuEngine {
    fn device(&self) -> String {
        self.kernels.device()
    }

    fn room(&self) -> Room {
        match (self.kernels.memory(), self.kernels.adapter().kind) {
            (None, "CPU" | "integrated GPU") => Room::Host,
            (bytes, _) => Room::Device { bytes: bytes.map(|b| usize::try_from(b).unwrap_or(usize::MAX)) },
        }
    }

    fn activation_bytes(&self) -> usize {
        self.kernels.activation_bytes()
    }

    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> Result<Box<dyn Session>, ExecError> {
        Ok(Box::new(Interpreter::new(Arc::clone(&self.kernels), graph, params)?))
    }
}
