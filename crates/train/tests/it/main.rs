//! Runs of a tiny network on the CPU.

mod ahead;
mod boundaries;
mod formulas;
mod proceed;
mod recompute;
mod resume;
mod retention;
mod tasks;
mod tiny;
mod train;
