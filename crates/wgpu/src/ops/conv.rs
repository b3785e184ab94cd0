//! Convolutions as products whose operands are gathered from pictures (implicit GEMM).

use defrost_tensor::call::{Conv2d, Conv2dGradInput, Conv2dGradWeight};
use defrost_tensor::{Activation, ConvDesc, ConvKind, KernelError, Shape4};

use super::matmul::{CONV_FORWARD, CONV_GRAD_INPUT, CONV_GRAD_WEIGHT, NN, NT, Product, TN};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;

/// A convolution over one input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    pub(crate) desc: ConvDesc,
    pub(crate) input: Shape4,
    pub(crate) output: Shape4,
    /// Rows and columns of zeros above and to the left.
    pub(crate) pads: [usize; 2],
}

/// The input positions of one remainder by the stride along one axis, and the taps that meet them.
///
/// Position `i` meets tap `k` where `i + pad - k·dilation` is a multiple of the stride. So only positions of the same
/// remainder share their taps, and each remainder is a dense product of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Phase {
    /// The first position; the next is a stride away.
    from: usize,
    /// Positions.
    count: usize,
    /// The first tap, the step to the next, how many.
    tap: usize,
    tap_step: usize,
    taps: usize,
    /// The output position that the first tap meets for the first position, and how much further back each next tap is.
    first_out: isize,
    step_out: usize,
}

impl Phase {
    fn new(from: usize, size: usize, kernel: usize, stride: usize, dilation: usize, pad: usize) -> Self {
        let meets = |&k: &usize| (from + pad) as isize - (k * dilation) as isize;
        let hits: Vec<_> = (0..kernel).filter(|k| meets(k).rem_euclid(stride as isize) == 0).collect();
        let tap = hits.first().copied().unwrap_or(0);
        let tap_step = hits.get(1).map_or(1, |second| second - tap);
        Self {
            from,
            count: size.saturating_sub(from).div_ceil(stride),
            tap,
            tap_step,
            taps: hits.len(),
            first_out: meets(&tap).div_euclid(stride as isize),
            step_out: tap_step * dilation / stride,
        }
    }
}

impl Conv {
    pub(crate) fn new(desc: ConvDesc, input: Shape4) -> Self {
        let output = desc.output(input).expect("a planned call has consistent shapes");
        let pads = desc.pads(input.h, input.w);
        Self { desc, input, output, pads: [pads.top, pads.left] }
    }

    /// Channels of input and output a group.
    fn group(&self) -> [usize; 2] {
        [self.input.c / self.desc.groups, self.output.c / self.desc.groups]
    }

    pub(crate) fn weights(&self) -> usize {
        self.desc.weight_shape().iter().product()
    }

    /// Elements an image of input and output.
    pub(crate) fn images(&self) -> [usize; 2] {
        [self.input.image_len(), self.output.image_len()]
    }

    fn vectors(&self) -> bool {
        self.group().iter().all(|c| c.is_multiple_of(4))
    }

    /// The shader's `Shape`. `phases` are those of the gradient of the input.
    pub(super) fn shape(&self, words: Words, per_group: usize, phases: Option<[Phase; 2]>) -> Words {
        let (i, o, d) = (self.input, self.output, self.desc);
        let [group_c, group_o] = self.group();
        let across = phases.map_or(d.kernel[1], |[_, x]| x.taps);
        let inverse = |v: usize| 1.0 / v as f32;
        let words = words
            .all(&[i.h, i.w, i.c, o.h, o.w, o.c, group_c, group_o, d.kernel[1]])
            .all(&[d.stride[0], d.stride[1], d.dilation[0], d.dilation[1], self.pads[0], self.pads[1]])
            .f(inverse(across))
            .f(inverse(per_group))
            .f(inverse(o.w))
            .f(inverse(o.h));
        let Some([y, x]) = phases else { return words };
        words
            .all(&[y.from, x.from, y.count, x.count, y.tap, x.tap, y.tap_step, x.tap_step, x.taps])
            .i(y.first_out)
            .i(x.first_out)
            .all(&[y.step_out, x.step_out])
    }
}

impl WgpuKernels {
    pub(crate) fn conv_forward(&self, call: Conv2d<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Conv2d { desc, input, activation, x, weight, bias, residual, out } = call;
        let conv = Conv::new(desc, input);
        out.half = self.gpu().half;
        let out = &*out;
        if desc.kind() == ConvKind::Depthwise {
            return self.depthwise_forward(&conv, activation, x, weight, bias, residual, out);
        }
        let [group_c, group_o] = conv.group();
        let pointwise = desc.kind() == ConvKind::Pointwise;
        let [inside, outside] = conv.images();
        let positions = conv.output.area();
        for images in self.image_parts(input.n, &[inside, outside]) {
            self.product(&Product {
                kind: if pointwise { &NN } else { &CONV_FORWARD },
                vectors: conv.vectors(),
                m: images.start * positions..images.end * positions,
                n: group_o,
                k: 0..desc.fan_in(),
                groups: desc.groups,
                ldc: conv.output.c,
                accumulate: false,
                activation,
                a: x.items(&images, inside),
                b: weight.span(conv.weights()),
                bias: bias.map(|b| b.span(conv.output.c)),
                residual: residual.map(|r| r.items(&images, outside)),
                out: out.items(&images, outside),
                shape: &|words| match pointwise {
                    true => words.all(&[group_c, group_o, 0, 0]),
                    false => conv.shape(words, group_c, None),
                },
            })?;
        }
        Ok(())
    }

    pub(crate) fn conv_grad_input(
        &self,
        call: Conv2dGradInput<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let Conv2dGradInput { desc, input, accumulate, grad_out, weight, grad_in } = call;
        let conv = Conv::new(desc, input);
        grad_in.half = false;
        let grad_in = &*grad_in;
        if desc.kind() == ConvKind::Depthwise {
            return self.depthwise_grad_input(&conv, accumulate, grad_out, weight, grad_in);
        }
        let [group_c, group_o] = conv.group();
        let pointwise = desc.kind() == ConvKind::Pointwise;
        let [inside, outside] = conv.images();
        let axis = |i: usize, size: usize| {
            let phase = move |from| {
                Phase::new(from, size, desc.kernel[i], desc.stride[i], desc.dilation[i], conv.pads[i])
            };
            (0..desc.stride[i].min(size)).map(phase).collect::<Vec<_>>()
        };
        for images in self.image_parts(input.n, &[inside, outside]) {
            for y in axis(0, input.h) {
                for x in axis(1, input.w) {
                    let positions = y.count * x.count;
                    self.product(&Product {
                        kind: if pointwise { &NT } else { &CONV_GRAD_INPUT },
                        vectors: conv.vectors(),
                        m: images.start * positions..images.end * positions,
                        n: group_c,
                        k: 0..y.taps * x.taps * group_o,
                        groups: desc.groups,
                        ldc: input.c,
                        accumulate,
                        activation: Activation::Identity,
                        a: grad_out.items(&images, outside),
                        b: weight.span(conv.weights()),
                        bias: None,
                        residual: None,
                        out: grad_in.items(&images, inside),
                        shape: &|words| match pointwise {
                            true => words.all(&[group_o, group_o, 0, 0]),
                            false => conv.shape(words, group_o, Some([y, x])),
                        },
                    })?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn conv_grad_weight(
        &self,
        call: Conv2dGradWeight<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let Conv2dGradWeight { desc, input, accumulate, x, grad_out, grad_weight } = call;
        let conv = Conv::new(desc, input);
        grad_weight.half = false;
        let grad_weight = &*grad_weight;
        if desc.kind() == ConvKind::Depthwise {
            return self.depthwise_grad_weight(&conv, accumulate, x, grad_out, grad_weight);
        }
        let [group_c, group_o] = conv.group();
        let pointwise = desc.kind() == ConvKind::Pointwise;
        let [inside, outside] = conv.images();
        let positions = conv.output.area();
        for images in self.image_parts(input.n, &[inside, outside]) {
            self.product(&Product {
                kind: if pointwise { &TN } else { &CONV_GRAD_WEIGHT },
                vectors: conv.vectors(),
                m: 0..desc.fan_in(),
                n: group_o,
                k: images.start * positions..images.end * positions,
                groups: desc.groups,
                ldc: conv.output.c,
                accumulate: accumulate || images.start > 0,
                activation: Activation::Identity,
                a: x.items(&images, inside),
                b: grad_out.items(&images, outside),
                bias: None,
                residual: None,
                out: grad_weight.span(conv.weights()),
                shape: &|words| match pointwise {
                    true => words.all(&[group_c, group_o, 0, 0]),
                    false => conv.shape(words, group_c, None),
                },
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Phase;

    /// Every tap of every position, once, at the right output.
    #[test]
    fn phases_meet_every_tap_of_every_position_once() {
        for (size, kernel, stride, dilation, pad) in [
            (7, 3, 1, 1, 1),
            (8, 3, 2, 1, 1),
            (9, 7, 2, 1, 3),
            (12, 4, 4, 1, 0),
            (9, 3, 2, 2, 2),
            (5, 1, 2, 1, 0),
        ] {
            let mut got = Vec::new();
            for from in 0..stride.min(size) {
                let p = Phase::new(from, size, kernel, stride, dilation, pad);
                for i in 0..p.count {
                    for t in 0..p.taps {
                        let out = p.first_out + i as isize - (t * p.step_out) as isize;
                        got.push((p.from + i * stride, p.tap + t * p.tap_step, out));
                    }
                }
            }
            got.sort_unstable();
            let meets = |i: usize, k: usize| (i + pad) as isize - (k * dilation) as isize;
            let mut want = Vec::new();
            for i in 0..size {
                let taps = (0..kernel).filter(|&k| meets(i, k).rem_euclid(stride as isize) == 0);
                want.extend(taps.map(|k| (i, k, meets(i, k).div_euclid(stride as isize))));
            }
            assert_eq!(got, want, "{size} {kernel} {stride} {dilation} {pad}");
        }
    }
}
