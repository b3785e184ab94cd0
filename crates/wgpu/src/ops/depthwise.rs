//! Depthwise convolutions: a thread a few channels of one position, and two-stage sums for the weights.

use defrost_tensor::{Activation, KernelError};

use super::conv::Conv;
use super::matmul::SHAPE;
use super::{COMMON, Chunks, activation, width};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::Source;

const PLACE: &str = include_str!("../shaders/conv/place.wgsl");

static FORWARD: Source = Source {
    name: "depthwise",
    parts: &[COMMON, SHAPE, PLACE, include_str!("../shaders/conv/depthwise.wgsl")],
    reads: 4,
    writes: 1,
};
static GRAD_INPUT: Source = Source {
    name: "depthwise grad input",
    parts: &[COMMON, SHAPE, PLACE, include_str!("../shaders/conv/depthwise_grad_input.wgsl")],
    reads: 2,
    writes: 1,
};
static GRAD_WEIGHT: Source = Source {
    name: "depthwise grad weight",
    parts: &[COMMON, SHAPE, PLACE, include_str!("../shaders/conv/depthwise_grad_weight.wgsl")],
    reads: 2,
    writes: 1,
};

impl WgpuKernels {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn depthwise_forward(
        &self,
        conv: &Conv,
        act: Activation,
        x: &WgpuBuf,
        weight: &WgpuBuf,
        bias: Option<&WgpuBuf>,
        residual: Option<&WgpuBuf>,
        out: &WgpuBuf,
    ) -> Result<(), KernelError> {
        let c = conv.input.c;
        let w = width(&[c]);
        let [inside, outside] = conv.images();
        for images in self.image_parts(conv.input.n, &[inside, outside]) {
            let (first, end) = (images.start * outside / w, images.end * outside / w);
            let given = [usize::from(bias.is_some()), usize::from(residual.is_some())];
            let words = Words::new().all(&[first, end, c / w, conv.desc.kernel[0]]).all(&given);
            let words = conv.shape(words.all(&[activation(act), 0]), 1, None);
            let reads = [
                Some(x.items(&images, inside)),
                Some(weight.span(conv.weights())),
                bias.map(|b| b.span(c)),
                residual.map(|r| r.items(&images, outside)),
            ];
            let operands = (&reads[..], &[Some(out.items(&images, outside))][..]);
            self.spread(&FORWARD, w, &[], words, operands, end - first)?;
        }
        Ok(())
    }

    pub(crate) fn depthwise_grad_input(
        &self,
        conv: &Conv,
        accumulate: bool,
        grad_out: &WgpuBuf,
        weight: &WgpuBuf,
        grad_in: &WgpuBuf,
    ) -> Result<(), KernelError> {
        let c = conv.input.c;
        let w = width(&[c]);
        let [inside, outside] = conv.images();
        for images in self.image_parts(conv.input.n, &[inside, outside]) {
            let (first, end) = (images.start * inside / w, images.end * inside / w);
            let words = Words::new().all(&[first, end, c / w, conv.desc.kernel[0]]);
            let words = conv.shape(words.all(&[usize::from(accumulate), 0, 0, 0]), 1, None);
            let reads = [Some(grad_out.items(&images, outside)), Some(weight.span(conv.weights()))];
            let operands = (&reads[..], &[Some(grad_in.items(&images, inside))][..]);
            self.spread(&GRAD_INPUT, w, &[], words, operands, end - first)?;
        }
        Ok(())
    }

    pub(crate) fn depthwise_grad_weight(
        &self,
        conv: &Conv,
        accumulate: bool,
        x: &WgpuBuf,
        grad_out: &WgpuBuf,
        grad_weight: &WgpuBuf,
    ) -> Result<(), KernelError> {
        let c = conv.input.c;
        let w = width(&[c]);
        let [inside, outside] = conv.images();
        let [kh, kw] = conv.desc.kernel;
        let area = conv.output.area();
        let weights = conv.weights();
        let positions = area * conv.output.n;
        let chunks = Chunks::new(positions, c / w * kh, self.crowd(), self.room() / weights);
        // Chunks may reach into two images, so windows are counted in positions of the output.
        let most = self.image_parts(conv.input.n, &[inside, outside])[0].len();
        let most = if most == conv.input.n { usize::MAX } else { (most.max(2) - 1) * area };
        self.with_workspace(0, chunks.count * weights, |workspace| {
            for (part, positions) in chunks.parts(positions, most) {
                let words = Words::new().all(&[
                    positions.start,
                    positions.end,
                    chunks.rows,
                    part.len(),
                    part.start,
                    c / w,
                    kh,
                    0,
                ]);
                let images = positions.start / area..positions.end.div_ceil(area);
                let reads = [
                    Some(x.part(images.start * inside, images.len() * inside)),
                    Some(grad_out.part(positions.start * c, positions.len() * c)),
                ];
                let operands = (&reads[..], &[Some(workspace.span(chunks.count * weights))][..]);
                let count = part.len() * c / w * kh;
                let words = conv.shape(words, 1, None);
                self.spread(&GRAD_WEIGHT, w, &[("KERNEL_W", kw as u32)], words, operands, count)?;
            }
            let out = grad_weight.span(weights);
            self.sum_chunks(w, workspace, chunks.count, weights, accumulate, out)
        })
    }
}
