//! The vocabulary that graphs and backends share: shapes, op descriptors, host arrays.
mod host;
mod shape;

pub use host::HostTensor;
pub use shape::{Shape4, ShapeError};
