//! The geometry that forward and input gradient share: which source positions a target position sums over.

use defrost_tensor::Shape4;

use super::ConvShape;
use super::narrow::Narrow;
use crate::half;

/// One weight position and where its source lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    /// Row and column of the source, relative to the target's grid position times the step.
    pub(super) offset: [isize; 2],
    /// The weight's position in the window, row by row.
    pub(super) index: usize,
}

/// The target positions that use the same taps: every `spread`-th from `origin`.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) taps: Vec<Tap>,
    pub(super) origin: [usize; 2],
    /// Rows and columns of positions.
    pub(super) grid: [usize; 2],
}

/// All phases of a gather.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    pub(super) source: Shape4,
    pub(super) target: Shape4,
    /// Step of the source a grid position.
    pub(super) step: [usize; 2],
    /// Step of the target a grid position.
    pub(super) spread: [usize; 2],
    pub(super) phases: Vec<Phase>,
    pub(super) groups: usize,
    /// Source floats that a tap reads: a group's channels.
    pub(super) depth: usize,
    /// Whether products are of operands rounded to bfloat16, where the machine has such.
    pub(super) half: bool,
    /// Whether the weights are read as `[tap, target, source]` instead of `[tap, source, target]`.
    pub(super) transposed: bool,
    /// Positions of the window.
    pub(super) window: usize,
    /// Output channels of the convolution: the innermost extent of the weights.
    pub(super) weight_columns: usize,
}

impl Gather {
    pub(super) fn forward(shape: &ConvShape) -> Self {
        let ConvShape { desc, input, output, pads, .. } = *shape;
        let taps = (0..desc.kernel[0] * desc.kernel[1])
            .map(|index| {
                let (ky, kx) = (index / desc.kernel[1], index % desc.kernel[1]);
                let offset = [
                    (ky * desc.dilation[0]) as isize - pads.top as isize,
                    (kx * desc.dilation[1]) as isize - pads.left as isize,
                ];
                Tap { offset, index }
            })
            .collect();
        Self {
            source: input,
            target: output,
            step: desc.stride,
            spread: [1; 2],
            phases: vec![Phase { taps, origin: [0; 2], grid: [output.h, output.w] }],
            groups: desc.groups,
            depth: desc.in_channels / desc.groups,
            half: shape.halves(desc.in_channels),
            transposed: false,
            window: desc.kernel[0] * desc.kernel[1],
            weight_columns: desc.out_channels,
        }
    }

    /// The forward pass over an input that holds its padding, as [`Narrow`] makes it: a row of the window is one tap.
    pub(super) fn narrow(shape: &ConvShape, narrow: &Narrow) -> Self {
        let rows = shape.desc.kernel[0];
        let offset = |y: usize| [(y * shape.desc.dilation[0]) as isize, 0];
        let mut gather = Self::forward(shape);
        gather.phases[0].taps = (0..rows).map(|y| Tap { offset: offset(y), index: y }).collect();
        let half = shape.halves(2) && half::pairs_up(rows, narrow.depth);
        Self { source: narrow.padded, depth: narrow.depth, window: rows, half, ..gather }
    }

    pub(super) fn grad_input(shape: &ConvShape) -> Self {
        let ConvShape { desc, input, output, pads, .. } = *shape;
        let [sy, sx] = desc.stride;
        let phases = (0..sy.min(input.h))
            .flat_map(|y| (0..sx.min(input.w)).map(move |x| [y, x]))
            .map(|origin| {
                // Input position i meets output o through tap k where o · stride = i + pad - k · dilation.
                let meet = |axis: usize, pad: usize, k: usize| {
                    let at = (origin[axis] + pad) as isize - (k * desc.dilation[axis]) as isize;
                    let stride = desc.stride[axis] as isize;
                    (at % stride == 0).then_some(at / stride)
                };
                // Backwards, so that offsets ascend as in the forward pass.
                let taps = (0..desc.kernel[0] * desc.kernel[1])
                    .rev()
                    .filter_map(|index| {
                        let y = meet(0, pads.top, index / desc.kernel[1])?;
                        let x = meet(1, pads.left, index % desc.kernel[1])?;
                        Some(Tap { offset: [y, x], index })
                    })
                    .collect();
                let grid = [(input.h - origin[0]).div_ceil(sy), (input.w - origin[1]).div_ceil(sx)];
                Phase { taps, origin, grid }
            })
            .collect();
        Self {
            source: output,
            target: input,
            step: [1; 2],
            spread: desc.stride,
            phases,
            groups: desc.groups,
            depth: desc.out_channels / desc.groups,
            half: shape.halves(desc.out_channels),
            transposed: true,
            window: desc.kernel[0] * desc.kernel[1],
            weight_columns: desc.out_channels,
        }
    }

    /// Channels of the target a group.
    pub(super) fn columns(&self) -> usize {
        self.target.c / self.groups
    }

    /// Whether each target has one source, in the same place: a pointwise convolution.
    pub(super) fn is_matrix(&self, phase: &Phase) -> bool {
        let same = (self.source.h, self.source.w) == (self.target.h, self.target.w);
        let [one, ..] = &*phase.taps else { return false };
        same && phase.taps.len() == 1 && one.offset == [0; 2] && (self.step, self.spread) == ([1; 2], [1; 2])
    }

    /// Where `tap`'s source for grid position `(y, x)` of image `n` starts, in elements, unless it is padding.
    #[inline(always)]
    pub(super) fn source_at(&self, tap: &Tap, n: usize, y: usize, x: usize) -> Option<usize> {
        let y = (y * self.step[0]).wrapping_add_signed(tap.offset[0]);
        let x = (x * self.step[1]).wrapping_add_signed(tap.offset[1]);
        let Shape4 { c, h, w, .. } = self.source;
        (y < h && x < w).then(|| ((n * h + y) * w + x) * c)
    }

    /// Where the target of grid position `(y, x)` of image `n` starts, in elements.
    #[inline(always)]
    pub(super) fn target_at(&self, phase: &Phase, n: usize, y: usize, x: usize) -> usize {
        let (y, x) = (y * self.spread[0] + phase.origin[0], x * self.spread[1] + phase.origin[1]);
        ((n * self.target.h + y) * self.target.w + x) * self.target.c
    }
}
