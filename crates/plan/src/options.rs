//! Which optional passes run.

use crate::Sharing;

/// Bytes of values above which programs let the front of a network run in parts of a batch ([`Options::in_parts`]), where
/// buffers can be cut.
pub const IN_PARTS_ABOVE: usize = 128 << 20;

/// Which optional passes run. All but `accumulate` change memory and time, never a result by more than rounding; `share`,
/// `pack` and `recompute` not by a bit, nor does `in_parts` where kernels compute a picture alike in batches of any size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// Fold frozen normalisations into convolutions.
    pub fold: bool,
    /// Fuse activations and sums.
    pub fuse: bool,
    /// Let values share buffers by lifetime.
    pub share: bool,
    /// Where values share buffers, let them be pieces of a single one, which takes less memory: for devices whose buffers can be
    /// cut and joined ([`Kernels::splitter`](defrost_tensor::Kernels::splitter)).
    pub pack: bool,
    /// Where values take more bytes than these, let the [`Front`](crate::Front) of the network run in parts of the batch, which takes less
    /// memory; `None`: never; 0: also where it costs time. For devices whose buffers can be cut and joined.
    pub in_parts: Option<usize>,
    /// Compute again in the backward pass what it reads, where that takes less memory than keeping it.
    pub recompute: bool,
    /// Compute again in the backward pass what normalisations with their activations put out, right before a convolution's
    /// gradient reads it: a small part of a step's time for much of its memory.
    pub renorm: bool,
    /// Use each gradient up as soon as it is made, see [`Plan::updates`](crate::Plan::updates); not where gradients are added up.
    pub apply: bool,
    /// Add gradients of parameters to what is there (several small batches to one step).
    pub accumulate: bool,
    /// Bytes in which the backend stores an activation's element ([`Kernels::activation_bytes`](defrost_tensor::Kernels)).
    pub activation_bytes: usize,
}

impl Default for Options {
    /// Everything that costs next to no time and leaves gradients where they can be read.
    fn default() -> Self {
        Self {
            fold: true,
            fuse: true,
            share: true,
            pack: false,
            in_parts: None,
            recompute: false,
            renorm: true,
            apply: false,
            accumulate: false,
            activation_bytes: 4,
        }
    }
}

impl Options {
    /// No optional pass: each op's calls as they are, each value in a buffer of its own.
    pub fn raw() -> Self {
        let off = false;
        Self {
            fold: off,
            fuse: off,
            share: off,
            pack: off,
            in_parts: None,
            recompute: off,
            renorm: off,
            apply: off,
            accumulate: off,
            activation_bytes: 4,
        }
    }

    /// With the least memory, at the price of up to one more forward pass.
    pub fn recomputing(self) -> Self {
        Self { recompute: true, ..self }
    }

    /// With gradients that are used up as soon as they are made, or not.
    pub fn applying(self, apply: bool) -> Self {
        Self { apply, ..self }
    }

    /// For a backend that stores an activation's element in so many bytes.
    pub fn storing(self, activation_bytes: usize) -> Self {
        Self { activation_bytes, ..self }
    }

    /// With values as pieces of a single buffer, or not.
    pub fn packing(self, pack: bool) -> Self {
        Self { pack, ..self }
    }

    /// With a front that runs in parts of the batch where values take more than so many bytes.
    pub fn in_parts(self, above: Option<usize>) -> Self {
        Self { in_parts: above, ..self }
    }

    /// With all that saves memory where buffers can be cut and joined, or without: values as pieces of a single buffer, and a
    /// front in parts of the batch above [`IN_PARTS_ABOVE`].
    pub fn cutting(self, able: bool) -> Self {
        self.packing(able).in_parts(able.then_some(IN_PARTS_ABOVE))
    }

    /// How values share memory.
    pub(crate) fn sharing(self) -> Sharing {
        match (self.share, self.pack) {
            (false, _) => Sharing::Off,
            (true, false) => Sharing::Slots,
            (true, true) => Sharing::Packed,
        }
    }

    /// With gradients added up.
    pub fn accumulating(self) -> Self {
        Self { accumulate: true, ..self }
    }
}
