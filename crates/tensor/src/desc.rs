//! Op descriptors: the geometry and the constants of an operation, without its operands.

use crate::{Shape4, ShapeError};

/// The function applied to a result before it is stored.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing: the value itself.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`, as in MobileNet.
    Relu6,
}

impl Activation {
    /// The function's value at `x`. NaN stays NaN, so that a broken step shows.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Relu6 => x.clamp(0.0, 6.0),
        }
    }

    /// Whether a gradient passes where the function's *value* is `y` (PyTorch's rule: not at the kinks).
    #[inline(always)]
    pub fn passes(self, y: f32) -> bool {
        match self {
            Self::Identity => true,
            Self::Relu => y > 0.0,
            Self::Relu6 => y > 0.0 && y < 6.0,
        }
    }
}

/// Rows and columns added around an image.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

/// How a window's padding is given.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Padding {
    /// The same number of rows above and below, and of columns left and right (PyTorch).
    Symmetric([usize; 2]),
    /// As much as makes the output `ceil(input / stride)`, the odd one below and to the right (TensorFlow's "SAME").
    Same,
}

impl Padding {
    /// The padding for an input of `size` rows and columns.
    pub fn resolve(self, size: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Pads {
        match self {
            Self::Symmetric([v, h]) => Pads { top: v, left: h, bottom: v, right: h },
            Self::Same => {
                let total = |i: usize| {
                    ((size[i].div_ceil(stride[i]) - 1) * stride[i] + kernel[i]).saturating_sub(size[i])
                };
                let (v, h) = (total(0), total(1));
                Pads { top: v / 2, left: h / 2, bottom: v - v / 2, right: h - h / 2 }
            }
        }
    }
}

/// Which of the special shapes a convolution has; kernels are chosen by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConvKind {
    /// One group, a window larger than 1×1 or a stride.
    Dense,
    /// One group, 1×1, stride 1, no padding: a matrix product.
    Pointwise,
    /// One input and one output channel a group.
    Depthwise,
    /// Any other grouping.
    Grouped,
}

/// A 2-D cross-correlation (what every framework calls convolution). Weights are `[out, in / groups, kh, kw]`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConvDesc {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Padding with zeros.
    pub padding: Padding,
    /// Distance between the window's taps; 1 is dense.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see one another.
    pub groups: usize,
}

impl ConvDesc {
    /// A square window with symmetric padding, dilation 1 and one group.
    pub const fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: Padding::Symmetric([padding; 2]),
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// The same window in `groups` groups.
    pub const fn with_groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The same window with another padding.
    pub const fn with_padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// The same window with dilated taps.
    pub const fn with_dilation(self, dilation: usize) -> Self {
        Self { dilation: [dilation; 2], ..self }
    }

    /// The window's extent, dilation included.
    pub const fn extent(&self) -> [usize; 2] {
        [(self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1]
    }

    /// The padding for an input of `h` rows and `w` columns.
    pub fn pads(&self, h: usize, w: usize) -> Pads {
        self.padding.resolve([h, w], self.extent(), self.stride)
    }

    /// `[out, in / groups, kh, kw]`.
    pub const fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// Inputs that one output sums over.
    pub const fn fan_in(&self) -> usize {
        self.in_channels / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// The special shape this convolution has.
    pub fn kind(&self) -> ConvKind {
        let unit = self.kernel == [1, 1] && self.stride == [1, 1];
        let unpadded = matches!(self.padding, Padding::Same | Padding::Symmetric([0, 0]));
        match self.groups {
            1 if unit && unpadded => ConvKind::Pointwise,
            1 => ConvKind::Dense,
            g if g == self.in_channels && g == self.out_channels => ConvKind::Depthwise,
            _ => ConvKind::Grouped,
        }
    }

    /// The output's shape for an input of shape `input`.
    ///
    /// # Errors
    /// Wrong channels, groups that do not divide them, an input smaller than the window.
    pub fn output(&self, input: Shape4) -> Result<Shape4, ShapeError> {
        let &Self { in_channels, out_channels, groups, stride, .. } = self;
        if groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
            return Err(ShapeError::Groups { groups, in_channels, out_channels });
        }
        if input.c != in_channels {
            return Err(ShapeError::Channels { input, want: in_channels });
        }
        let (pads, extent) = (self.pads(input.h, input.w), self.extent());
        let (h, w) = (input.h + pads.top + pads.bottom, input.w + pads.left + pads.right);
        if h < extent[0] || w < extent[1] {
            return Err(ShapeError::TooSmall { input, kernel: extent });
        }
        Ok(Shape4::new(
            input.n,
            out_channels,
            (h - extent[0]) / stride[0] + 1,
            (w - extent[1]) / stride[1] + 1,
        ))
    }

    /// Multiply-accumulates of the forward pass, padding counted as work.
    ///
    /// # Errors
    /// As [`ConvDesc::output`].
    pub fn macs(&self, input: Shape4) -> Result<u64, ShapeError> {
        Ok(self.output(input)?.len() as u64 * self.fan_in() as u64)
    }
}

/// Which input positions a pooled output covers along both axes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PoolDesc {
    /// A window that slides by a stride, over an input padded on all sides (never counted in an average).
    Window {
        /// Rows and columns of the window.
        kernel: [usize; 2],
        /// Step of the window.
        stride: [usize; 2],
        /// Padding above and below, left and right; less than the window.
        padding: [usize; 2],
        /// Whether a last, partial window counts (Lasagne's `ignore_border=False`, PyTorch's `ceil_mode`).
        ceil: bool,
    },
    /// PyTorch's adaptive windows: output `i` of `out` covers `floor(i·in/out) .. ceil((i+1)·in/out)`.
    Adaptive {
        /// Rows and columns of the output.
        out: [usize; 2],
    },
}

impl PoolDesc {
    /// A square window.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self::Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], ceil: false }
    }

    /// One output a channel.
    pub const GLOBAL: Self = Self::Adaptive { out: [1, 1] };

    /// The output's shape for an input of shape `input`.
    ///
    /// # Errors
    /// An input smaller than the window.
    pub fn output(&self, input: Shape4) -> Result<Shape4, ShapeError> {
        match *self {
            Self::Adaptive { out: [h, w] } => Ok(Shape4 { h, w, ..input }),
            Self::Window { kernel, stride, padding, ceil } => {
                let extent = |i: usize, size: usize| {
                    let span = (size + 2 * padding[i]).checked_sub(kernel[i])?;
                    let steps = if ceil { span.div_ceil(stride[i]) } else { span / stride[i] };
                    // The last window must start inside the input or its left padding (PyTorch's rule).
                    let last_inside = ceil && steps * stride[i] >= size + padding[i];
                    Some(steps + 1 - usize::from(last_inside))
                };
                match (extent(0, input.h), extent(1, input.w)) {
                    (Some(h), Some(w)) => Ok(Shape4 { h, w, ..input }),
                    _ => Err(ShapeError::TooSmall { input, kernel }),
                }
            }
        }
    }

    /// The input rows (`axis` 0) or columns (`axis` 1) that output `index` covers, padding cut off.
    pub fn range(&self, axis: usize, index: usize, size: usize) -> std::ops::Range<usize> {
        match *self {
            Self::Adaptive { out } => index * size / out[axis]..((index + 1) * size).div_ceil(out[axis]),
            Self::Window { kernel, stride, padding, .. } => {
                let start = index * stride[axis];
                start.saturating_sub(padding[axis])..(start + kernel[axis] - padding[axis]).min(size)
            }
        }
    }
}

/// Which variance goes into the running statistics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RunningVariance {
    /// `Σ(x-µ)² / (n-1)`: PyTorch.
    Unbiased,
    /// `Σ(x-µ)² / n`: Keras.
    Biased,
}

/// Batch normalisation (Ioffe and Szegedy 2015) over `n`, `h` and `w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormDesc {
    /// Channels of the input.
    pub channels: usize,
    /// Added to the variance before the square root.
    pub eps: f32,
    /// The weight of the *new* batch in the running statistics: `running = (1 - m)·running + m·batch`
    /// (PyTorch's convention; Keras' `momentum` is one minus this).
    pub momentum: f32,
    /// Which variance is recorded.
    pub running_variance: RunningVariance,
}

impl NormDesc {
    /// PyTorch's defaults: `eps` 1e-5, `momentum` 0.1, unbiased running variance.
    pub const fn torch(channels: usize) -> Self {
        Self { channels, eps: 1e-5, momentum: 0.1, running_variance: RunningVariance::Unbiased }
    }

    /// Keras' MobileNet: `eps` 1e-3, `momentum` 0.999 there, 0.001 here, biased running variance.
    pub const fn keras_mobilenet(channels: usize) -> Self {
        Self { channels, eps: 1e-3, momentum: 0.001, running_variance: RunningVariance::Biased }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_row_last() {
        let desc = ConvDesc::new(3, 8, 3, 2, 0).with_padding(Padding::Same);
        assert_eq!(desc.pads(160, 160), Pads { top: 0, left: 0, bottom: 1, right: 1 });
        assert_eq!(desc.pads(5, 5), Pads { top: 1, left: 1, bottom: 1, right: 1 });
        assert_eq!(desc.output(Shape4::new(1, 3, 160, 5)).unwrap(), Shape4::new(1, 8, 80, 3));
    }

    #[test]
    fn convolution_shapes_follow_torch() {
        let stem = ConvDesc::new(3, 64, 7, 2, 3);
        assert_eq!(stem.output(Shape4::new(2, 3, 224, 33)).unwrap(), Shape4::new(2, 64, 112, 17));
        assert_eq!(stem.macs(Shape4::new(1, 3, 224, 224)).unwrap(), 118_013_952);
        assert_eq!(ConvDesc::new(8, 8, 3, 1, 1).with_groups(8).kind(), ConvKind::Depthwise);
        assert_eq!(ConvDesc::new(8, 8, 1, 1, 0).kind(), ConvKind::Pointwise);
        assert_eq!(ConvDesc::new(8, 8, 1, 2, 0).kind(), ConvKind::Dense);
        let small = Shape4::new(1, 8, 2, 2);
        assert_eq!(
            ConvDesc::new(8, 8, 5, 1, 0).output(small).unwrap_err(),
            ShapeError::TooSmall { input: small, kernel: [5, 5] }
        );
    }

    #[test]
    fn pool_shapes_and_ranges_follow_torch() {
        let pool = PoolDesc::square(3, 2, 1);
        assert_eq!(pool.output(Shape4::new(1, 4, 112, 7)).unwrap(), Shape4::new(1, 4, 56, 4));
        assert_eq!((pool.range(0, 0, 112), pool.range(1, 3, 7)), (0..2, 5..7));
        let ceil = PoolDesc::Window { kernel: [3; 2], stride: [2; 2], padding: [0; 2], ceil: true };
        assert_eq!(ceil.output(Shape4::new(1, 4, 112, 4)).unwrap(), Shape4::new(1, 4, 56, 2));
        let adaptive = PoolDesc::Adaptive { out: [7, 7] };
        assert_eq!(
            (adaptive.range(0, 0, 1), adaptive.range(0, 6, 1), adaptive.range(0, 3, 10)),
            (0..1, 0..1, 4..6)
        );
    }

    #[test]
    fn activations_keep_nan() {
        assert!(Activation::Relu6.apply(f32::NAN).is_nan());
        assert_eq!(Activation::Relu6.apply(7.0), 6.0);
        assert!(!Activation::Relu6.passes(6.0) && !Activation::Relu.passes(0.0));
    }
}
