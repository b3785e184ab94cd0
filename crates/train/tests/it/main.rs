//! Runs of a tiny network on the CPU.

mod formulas;
mod recompute;
mod resume;
mod tasks;
mod tiny;
mod train;
