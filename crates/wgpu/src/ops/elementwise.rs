//! One pass over elements: activations, sums, copies, dropout, other orders, pictures.

use defrost_tensor::call::{Activate, ActivateGrad, Add, Copy, CopyChannels, Dropout, Flatten, Unflatten};
use defrost_tensor::{Activation, KernelError, PixelScale, Shape4};

use super::{COMMON, activation, blocks, width};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::{Define, Source};

const MAP_PARTS: &[&str] = &[COMMON, include_str!("../shaders/elementwise/map.wgsl")];
const fn map(name: &'static str) -> Source {
    Source { name, parts: MAP_PARTS, reads: 2, writes: 1 }
}
static ACTIVATE: Source = map("activate");
static ACTIVATE_GRAD: Source = map("activate gradient");
static ADD: Source = map("add");
static COPY: Source = map("copy");

static FILL: Source = Source {
    name: "fill",
    parts: &[COMMON, include_str!("../shaders/elementwise/fill.wgsl")],
    reads: 0,
    writes: 1,
};
static DROPOUT: Source = Source {
    name: "dropout",
    parts: &[COMMON, include_str!("../shaders/elementwise/dropout.wgsl")],
    reads: 2,
    writes: 1,
};
const FLATTEN_PARTS: &[&str] = &[COMMON, include_str!("../shaders/elementwise/flatten.wgsl")];
static FLATTEN: Source = Source { name: "flatten", parts: FLATTEN_PARTS, reads: 1, writes: 1 };
static UNFLATTEN: Source = Source { name: "unflatten", parts: FLATTEN_PARTS, reads: 1, writes: 1 };
static COPY_CHANNELS: Source = Source {
    name: "copy channels",
    parts: &[COMMON, include_str!("../shaders/elementwise/channels.wgsl")],
    reads: 1,
    writes: 1,
};
static PIXELS: Source = Source {
    name: "pixels",
    parts: &[COMMON, include_str!("../shaders/elementwise/pixels.wgsl")],
    reads: 1,
    writes: 1,
};

/// One of the kernels of `map.wgsl`.
struct Map<'a> {
    source: &'static Source,
    define: Define,
    activation: Activation,
    accumulate: bool,
    len: usize,
    a: &'a WgpuBuf,
    b: Option<&'a WgpuBuf>,
    out: &'a WgpuBuf,
}

impl WgpuKernels {
    fn map(&self, m: Map<'_>) -> Result<(), KernelError> {
        let w = width(&[m.len]);
        for part in self.parts(m.len) {
            let words = Words::new().all(&[
                part.start / w,
                part.end / w,
                activation(m.activation),
                usize::from(m.accumulate),
            ]);
            let operands = (
                &[Some(m.a), m.b].map(|b| b.map(|b| b.items(&part, 1)))[..],
                &[Some(m.out.items(&part, 1))][..],
            );
            self.spread(m.source, w, &[m.define], words, operands, part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn activate_call(&self, call: Activate<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Activate { activation, len, x: a, out } = call;
        out.half = a.half;
        let (source, define) = (&ACTIVATE, ("ACTIVATE", 1));
        self.map(Map { source, define, activation, accumulate: false, len, a, b: None, out })
    }

    pub(crate) fn activate_grad_call(
        &self,
        call: ActivateGrad<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let ActivateGrad { activation, len, accumulate, out: a, grad_out, grad_in: out } = call;
        out.half = false;
        let (source, define) = (&ACTIVATE_GRAD, ("GRAD", 1));
        self.map(Map { source, define, activation, accumulate, len, a, b: Some(grad_out), out })
    }

    pub(crate) fn add_call(&self, call: Add<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Add { activation, len, a, b, out } = call;
        out.half = a.half && b.half;
        let (source, define) = (&ADD, ("ADD", 1));
        self.map(Map { source, define, activation, accumulate: false, len, a, b: Some(b), out })
    }

    pub(crate) fn copy_call(&self, call: Copy<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Copy { len, accumulate, x: a, out } = call;
        if !accumulate {
            out.half = a.half;
        }
        let (source, define, activation) = (&COPY, ("COPY", 1), Activation::Identity);
        self.map(Map { source, define, activation, accumulate, len, a, b: None, out })
    }

    pub(crate) fn fill_call(&self, len: usize, value: f32, dst: &mut WgpuBuf) -> Result<(), KernelError> {
        dst.half = false;
        for part in self.parts(len) {
            let words = Words::new().all(&[part.start, part.end]).raw(value.to_bits());
            let out = Some(dst.part(part.start, part.len()));
            self.spread(&FILL, 1, &[], words, (&[], &[out]), part.len().div_ceil(4))?;
        }
        Ok(())
    }

    pub(crate) fn dropout_call(&self, call: Dropout<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Dropout { shape, rate, layer, accumulate, x, keys, out } = call;
        if !accumulate {
            out.half = x.half;
        }
        let (n, len) = (shape.n, shape.len());
        for part in self.parts(len) {
            let words = Words::new()
                .all(&[part.start, part.end, shape.c])
                .raw(layer)
                .u(usize::from(accumulate))
                .f(rate * 16_777_216.0)
                .f(1.0 / (1.0 - rate));
            let reads = [Some(x.items(&part, 1)), Some(keys.span(2 * n))];
            let writes = [Some(out.items(&part, 1))];
            self.spread(&DROPOUT, 1, &[], words, (&reads, &writes), part.len())?;
        }
        Ok(())
    }

    pub(crate) fn flatten_call(&self, call: Flatten<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Flatten { input, x, out } = call;
        out.half = x.half;
        self.reorder(&FLATTEN, 0, input, false, x, out)
    }

    pub(crate) fn unflatten_call(&self, call: Unflatten<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Unflatten { input, accumulate, x, out } = call;
        if !accumulate {
            out.half = x.half;
        }
        self.reorder(&UNFLATTEN, 1, input, accumulate, x, out)
    }

    fn reorder(
        &self,
        source: &'static Source,
        back: u32,
        shape: Shape4,
        accumulate: bool,
        x: &WgpuBuf,
        out: &WgpuBuf,
    ) -> Result<(), KernelError> {
        let len = shape.image_len();
        for images in self.image_parts(shape.n, &[len]) {
            let words = Words::new().all(&[images.start * len, images.end * len, shape.area(), shape.c]);
            let words = words.u(usize::from(accumulate));
            let operands = (&[Some(x.items(&images, len))][..], &[Some(out.items(&images, len))][..]);
            self.spread(source, 1, &[("BACK", back)], words, operands, images.len() * len)?;
        }
        Ok(())
    }

    pub(crate) fn copy_channels_call(
        &self,
        call: CopyChannels<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let CopyChannels { input, output, from, to, channels, accumulate, x, out } = call;
        // The first part of a concatenation says how all of it is stored.
        if !accumulate && to == 0 {
            out.half = x.half;
        }
        let out = &*out;
        let w = width(&[input.c, output.c, from, to, channels]);
        for seen in blocks(input.rows(), self.room() / input.c.max(output.c)) {
            let words = Words::new().all(&[seen.start, seen.end]);
            let words = words.all(&[input.c, output.c, from, to, channels].map(|c| c / w));
            let words = words.u(usize::from(accumulate));
            let operands = (&[Some(x.items(&seen, input.c))][..], &[Some(out.items(&seen, output.c))][..]);
            self.spread(&COPY_CHANNELS, w, &[], words, operands, seen.len() * channels / w)?;
        }
        Ok(())
    }

    /// Pictures whose bytes lie in `bytes`, four an element. At most four channels.
    pub(crate) fn pixels(
        &self,
        shape: Shape4,
        bytes: &WgpuBuf,
        scale: &PixelScale,
        out: &mut WgpuBuf,
    ) -> Result<(), KernelError> {
        out.half = self.gpu().half;
        let four = |values: &[f32]| [0, 1, 2, 3].map(|i| values.get(i).copied().unwrap_or(0.0));
        for part in self.parts(shape.len()) {
            let words = Words::new().all(&[part.start, part.end, shape.c, usize::from(scale.reversed)]);
            let words = four(&scale.scale).into_iter().chain(four(&scale.shift)).fold(words, Words::f);
            let from = part.start / 4;
            let reads = [Some(bytes.part(from, part.end.div_ceil(4) - from))];
            let writes = [Some(out.part(part.start, part.len()))];
            self.spread(&PIXELS, 1, &[], words, (&reads, &writes), part.len())?;
        }
        Ok(())
    }
}
