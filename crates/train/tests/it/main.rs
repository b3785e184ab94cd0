//! Runs of a tiny network on the CPU.

mod resume;
mod tiny;
mod train;
