//! The planner: from a graph and what is frozen to the exact calls of a training step.
//!
//! The decision that shapes this crate: **everything that freezing saves is saved here, before the first step, as a
//! list of passes over plain data.** Which gradients are of use ([`needs_grad`]), where the network splits into a part
//! that never changes and a part that trains ([`cut`]), which normalisations melt into convolutions ([`fold()`]), what
//! fuses ([`fuse()`]), which values share memory ([`assign`]), what runs in parts of the batch ([`Front`]): each pass is a free function, says in one line what it
//! did, and can be switched off, so that a test can compare the raw program with the optimised one. No floats here.

mod cost;
mod cut;
mod fold;
mod front;
mod fuse;
mod need;
mod options;
mod plan;
mod recompute;
mod slots;
mod table;
mod uses;

pub use cost::flops;
pub use cut::cut;
pub use fold::fold;
pub use front::Front;
pub use fuse::{Fused, fuse};
pub use need::{is_fixed, needs_grad};
pub use options::{IN_PARTS_ABOVE, Options};
pub use plan::{Plan, PlanError, Purpose, Update};
pub use slots::{Sharing, Slots, assign, widths};
pub use table::{Memory, StageRow};
pub use uses::Uses;

#[cfg(test)]
mod tests;
