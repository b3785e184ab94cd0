//! Buffers: a tensor each.

use candle_core::Tensor;

/// A buffer of the candle backend.
///
/// On the CPU it is one flat tensor that calls write in place. On a GPU a call that writes the buffer puts a new tensor in
/// its place, as candle's operations make one; it may then be shorter than the buffer was made for.
#[derive(Debug)]
pub struct CandleBuf {
    pub(crate) value: Tensor,
}

impl CandleBuf {
    /// What it holds: at least as many elements as the value that was written last, in the device's order.
    pub fn tensor(&self) -> &Tensor {
        &self.value
    }
}
