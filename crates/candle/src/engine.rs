//! The engine: [`CandleKernels`] behind [`Engine`].

use std::sync::Arc;

use defrost_exec::{Engine, ExecError, Interpreter, Room, Session};
use defrost_graph::{Graph, ParamStore};
use defrost_tensor::Kernels;

use crate::{CandleKernels, CandleOptions, OpenError};

/// A device of candle's.
#[derive(Debug)]
pub struct CandleEngine {
    kernels: Arc<CandleKernels>,
}

impl CandleEngine {
    /// Opens a device.
    ///
    /// # Errors
    /// A device that this build leaves out or that is not there; numbers that it does not have.
    pub fn new(options: &CandleOptions) -> Result<Self, OpenError> {
        Ok(Self { kernels: Arc::new(CandleKernels::new(options)?) })
    }

    /// On a device that is open already.
    pub fn with_kernels(kernels: Arc<CandleKernels>) -> Self {
        Self { kernels }
    }
}

impl Engine for CandleEngine {
    fn device(&self) -> String {
        self.kernels.device()
    }

    fn room(&self) -> Room {
        if self.kernels.is_cpu() { Room::Host } else { Room::Device { bytes: None } }
    }

    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> Result<Box<dyn Session>, ExecError> {
        Ok(Box::new(Interpreter::new(Arc::clone(&self.kernels), graph, params)?))
    }
}
