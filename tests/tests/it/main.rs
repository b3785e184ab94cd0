//! One binary for all tests over the facade.

#[cfg(feature = "candle")]
mod candle;
mod exact;
mod freezing;
mod front;
mod golden;
mod keras;
mod names;
mod published;
mod recipes;
mod resume;
mod tools;
#[cfg(feature = "wgpu")]
mod wgpu;
