//! Pools: a thread a few channels of one position; gradients are gathered, never scattered.

use defrost_tensor::call::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use defrost_tensor::{KernelError, PoolDesc, Shape4};

use super::{COMMON, width};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::{Define, Source};

const SHAPE: &str = include_str!("../shaders/pool/shape.wgsl");
const LARGER: &str = include_str!("../shaders/pool/larger.wgsl");

const FORWARD_PARTS: &[&str] = &[COMMON, SHAPE, LARGER, include_str!("../shaders/pool/forward.wgsl")];
static MAX: Source = Source { name: "max pool", parts: FORWARD_PARTS, reads: 1, writes: 1 };
static AVG: Source = Source { name: "average pool", parts: FORWARD_PARTS, reads: 1, writes: 1 };
static MAX_GRAD: Source = Source {
    name: "max pool gradient",
    parts: &[COMMON, SHAPE, LARGER, include_str!("../shaders/pool/max_grad.wgsl")],
    reads: 2,
    writes: 1,
};
static AVG_GRAD: Source = Source {
    name: "average pool gradient",
    parts: &[COMMON, SHAPE, include_str!("../shaders/pool/avg_grad.wgsl")],
    reads: 1,
    writes: 1,
};

/// One of the four kernels over one input.
struct Pool<'a> {
    source: &'static Source,
    defines: &'a [Define],
    desc: PoolDesc,
    input: Shape4,
    /// Whether the input's shape is what is written.
    backward: bool,
    accumulate: bool,
    /// What is read, and whether it has the input's shape.
    reads: &'a [(&'a WgpuBuf, bool)],
    out: &'a WgpuBuf,
}

impl WgpuKernels {
    pub(crate) fn max_pool_call(&self, call: MaxPool<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let MaxPool { desc, input, x, out } = call;
        out.half = x.half;
        let reads = &[(x, true)];
        self.pool(Pool {
            source: &MAX,
            defines: &[],
            desc,
            input,
            backward: false,
            accumulate: false,
            reads,
            out,
        })
    }

    pub(crate) fn avg_pool_call(&self, call: AvgPool<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let AvgPool { desc, input, x, out } = call;
        out.half = x.half;
        let (defines, reads) = (&[("AVERAGE", 1)], &[(x, true)]);
        self.pool(Pool { source: &AVG, defines, desc, input, backward: false, accumulate: false, reads, out })
    }

    pub(crate) fn max_pool_grad_call(
        &self,
        call: MaxPoolGrad<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let MaxPoolGrad { desc, input, accumulate, x, grad_out, grad_in: out } = call;
        out.half = false;
        let reads = &[(x, true), (grad_out, false)];
        self.pool(Pool {
            source: &MAX_GRAD,
            defines: &[],
            desc,
            input,
            backward: true,
            accumulate,
            reads,
            out,
        })
    }

    pub(crate) fn avg_pool_grad_call(
        &self,
        call: AvgPoolGrad<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let AvgPoolGrad { desc, input, accumulate, grad_out, grad_in: out } = call;
        out.half = false;
        let reads = &[(grad_out, false)];
        self.pool(Pool {
            source: &AVG_GRAD,
            defines: &[],
            desc,
            input,
            backward: true,
            accumulate,
            reads,
            out,
        })
    }

    fn pool(&self, p: Pool<'_>) -> Result<(), KernelError> {
        let output = p.desc.output(p.input).expect("a planned call has consistent shapes");
        let c = p.input.c;
        let w = width(&[c]);
        let (inside, outside) = (p.input.image_len(), output.image_len());
        // Adaptive windows have no stride.
        let [kernel, stride, pad] = match p.desc {
            PoolDesc::Window { kernel, stride, padding, .. } => [kernel, stride, padding],
            _ => [[0; 2]; 3],
        };
        for images in self.image_parts(p.input.n, &[inside, outside]) {
            let written = if p.backward { inside } else { outside };
            let (first, end) = (images.start * written / w, images.end * written / w);
            let words = Words::new()
                .all(&[first, end, c / w, p.input.h, p.input.w, output.h, output.w])
                .all(&kernel)
                .all(&stride)
                .all(&pad)
                .u(usize::from(p.accumulate));
            let reads: Vec<_> = p
                .reads
                .iter()
                .map(|&(buf, as_input)| Some(buf.items(&images, if as_input { inside } else { outside })))
                .collect();
            self.spread(
                p.source,
                w,
                p.defines,
                words,
                (&reads, &[Some(p.out.items(&images, written))]),
                end - first,
            )?;
        }
        Ok(())
    }
}
