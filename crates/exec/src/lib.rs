//! The interpreter of plans, and the one place where a backend's type is erased.
//!
//! The decision that shapes this crate: **generics below this line, `dyn` above it.** A backend is a type that
//! implements [`Kernels`](defrost_tensor::Kernels); [`Interpreter`] turns any such type into a [`Session`], one virtual
//! call a step and none an op. Trainers and programs see [`Engine`] and [`Session`] only and carry no type parameter.

mod arena;
mod batch;
mod buffers;
mod compiled;
mod error;
mod front;
mod interpreter;
mod optimizer;
mod prepare;
mod profile;
mod session;
mod stepper;
mod update;

pub use defrost_graph::{Graph, Loss, Marking, ParamId, ParamMask, ParamStore};
pub use defrost_plan::{Options, Plan};
pub use error::ExecError;
pub use interpreter::Interpreter;
pub use session::{
    Clip, Engine, Images, KernelTime, Phase, Rate, Room, Rule, Session, StepOutput, TrainBatch,
};
pub use update::Update;
