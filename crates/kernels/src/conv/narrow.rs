//! Convolutions over few channels: the first of a network, over pictures.
//!
//! Three floats are no row of a matrix product worth the name. Over a copy of the input that holds its padding, the
//! columns of a window lie one after another, so that a whole row of the window is one tap.

use defrost_tensor::{ConvKind, Shape4};

use super::ConvShape;
use crate::Threads;

/// The geometry of the padded copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    /// The shape of the copy.
    pub(super) padded: Shape4,
    /// Floats of a row of the window.
    pub(super) depth: usize,
}

impl Narrow {
    /// The copy's geometry, where the convolution gains by it.
    pub(super) fn new(shape: &ConvShape) -> Option<Self> {
        let ConvShape { desc, input, pads, .. } = shape;
        let gains =
            desc.kind() == ConvKind::Dense && input.c < 8 && desc.kernel[1] > 1 && desc.dilation[1] == 1;
        gains.then(|| Self {
            padded: Shape4 {
                h: input.h + pads.top + pads.bottom,
                w: input.w + pads.left + pads.right,
                ..*input
            },
            depth: desc.kernel[1] * input.c,
        })
    }

    /// Floats of the copy.
    pub(super) fn len(&self) -> usize {
        crate::lines(self.padded.len())
    }

    /// Copies the input between its padding.
    pub(super) fn pad(&self, threads: &Threads, shape: &ConvShape, x: &[f32], out: &mut [f32]) {
        let ConvShape { input, pads, .. } = shape;
        let (row, wide) = (input.w * input.c, self.padded.w * self.padded.c);
        let left = pads.left * input.c;
        threads.for_chunks(&mut out[..self.padded.len()], self.padded.h * wide, |n, image| {
            for (y, out) in image.chunks_exact_mut(wide).enumerate() {
                match y.checked_sub(pads.top).filter(|&y| y < input.h) {
                    Some(y) => {
                        out[..left].fill(0.0);
                        out[left..left + row].copy_from_slice(&x[(n * input.h + y) * row..][..row]);
                        out[left + row..].fill(0.0);
                    }
                    None => out.fill(0.0),
                }
            }
        });
    }
}
