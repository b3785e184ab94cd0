//! The candle backend against the shared suite; what only it has.

mod conformance;
mod device;
