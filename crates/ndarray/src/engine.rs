//! The engine: [`CpuKernels`] behind [`Engine`].

use std::sync::Arc;

use defrost_exec::{Engine, ExecError, Interpreter, Session};
use defrost_graph::{Graph, ParamStore};
use defrost_tensor::Kernels;

use crate::{CpuKernels, CpuOptions};

/// The CPU as a device.
pub struct CpuEngine {
    kernels: Arc<CpuKernels>,
}

impl CpuEngine {
    /// The CPU with this many compute threads, one a core by default. The number changes no bit of any result.
    pub fn new(threads: Option<usize>) -> Self {
        Self { kernels: Arc::new(CpuKernels::new(threads)) }
    }

    /// The CPU, computing as `options` say.
    pub fn with_options(options: CpuOptions) -> Self {
        Self { kernels: Arc::new(CpuKernels::with_options(options)) }
    }
}

impl Engine for CpuEngine {
    fn device(&self) -> String {
        self.kernels.device()
    }

    fn packs(&self) -> bool {
        self.kernels.splitter().is_some()
    }

    fn open(&self, graph: Arc<Graph>, params: &ParamStore) -> Result<Box<dyn Session>, ExecError> {
        Ok(Box::new(Interpreter::new(Arc::clone(&self.kernels), graph, params)?))
    }

    fn open_owned(&self, graph: Arc<Graph>, params: ParamStore) -> Result<Box<dyn Session>, ExecError> {
        Ok(Box::new(Interpreter::owning(Arc::clone(&self.kernels), graph, params)?))
    }
}
