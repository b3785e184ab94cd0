//! One suite for all backends, as data: problems, an f64 oracle, tolerances.
//!
//! The decision that shapes this crate: **the suite is a list of values, not a set of test functions.** A [`Case`] is
//! a [`Call`](defrost_tensor::Call) whose operands say how they are laid out and filled; the expected result is whatever
//! the [`Oracle`] makes of the same call in f64. A backend contributes one test that hands its kernels to [`run_all`],
//! and the list of what it cannot do ([`Expectation`]); it has no copy of a problem, and a case that is added here is
//! run everywhere. (After the `test-rt` crates of tract.)
//!
//! Every case also checks what no formula says: results are overwritten where they are not added to (they start as
//! NaN), operands that are only read stay as they were, the same input gives the same bits twice, and again in buffers
//! that are longer than needed, as the planner's slots are.
//!
//! [`run_plans`] does the same for whole networks: losses, gradients, running statistics and predictions of small networks
//! for many markings, on the raw, the folded, the fused and the slot-planned plan.
//!
//! The oracle is itself checked: finite differences of every function, and of whole networks' losses, against the
//! gradients, in f64.

mod case;
mod cases;
mod det;
mod networks;
mod oracle;
mod plans;
mod reference;
mod report;
mod run;

pub use case::{Case, Fill, Operand};
pub use cases::cases;
pub use det::{det, det_f64};
pub use networks::{golden_params, residual_network};
pub use oracle::Oracle;
pub use plans::run_plans;
pub use report::{Failure, Outcome, Report};
pub use run::{Expectation, run_all, run_cases};

#[cfg(test)]
mod tests;
