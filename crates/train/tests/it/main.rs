//! Runs of a tiny network on the CPU.

mod resume;
mod tasks;
mod tiny;
mod train;
