//! Optimizers: one pass over a parameter, its gradient and its state, two where a norm is between; limits on gradients,
//! averages of weights.

use defrost_tensor::call::{Adam, Clip, Lamb, Lerp, RmsProp, Sgd};
use defrost_tensor::{KernelError, Kernels, Limit};

use super::{COMMON, width};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::Source;

static SGD: Source =
    Source { name: "sgd", parts: &[COMMON, include_str!("../shaders/optim/sgd.wgsl")], reads: 1, writes: 2 };
static ADAM: Source = Source {
    name: "adam",
    parts: &[COMMON, include_str!("../shaders/optim/adam.wgsl")],
    reads: 1,
    writes: 3,
};
static RMS_PROP: Source = Source {
    name: "rms prop",
    parts: &[COMMON, include_str!("../shaders/optim/rms_prop.wgsl")],
    reads: 1,
    writes: 4,
};
const LAMB_STEP: &str = include_str!("../shaders/optim/lamb_step.wgsl");
static LAMB_MOMENTS: Source = Source {
    name: "lamb, moments",
    parts: &[COMMON, LAMB_STEP, include_str!("../shaders/optim/lamb_moments.wgsl")],
    reads: 2,
    writes: 3,
};
static LAMB: Source = Source {
    name: "lamb",
    parts: &[COMMON, LAMB_STEP, include_str!("../shaders/optim/lamb.wgsl")],
    reads: 3,
    writes: 1,
};
static CLIP: Source = Source {
    name: "clip",
    parts: &[COMMON, include_str!("../shaders/optim/clip.wgsl")],
    reads: 1,
    writes: 1,
};
static LERP: Source = Source {
    name: "lerp",
    parts: &[COMMON, include_str!("../shaders/optim/lerp.wgsl")],
    reads: 1,
    writes: 1,
};

/// What makes up for a moment that began as 0, after `step` steps: `1 - beta^step`.
fn correction(beta: f32, step: u32) -> f64 {
    1.0 - f64::from(beta).powi(step as i32)
}

impl WgpuKernels {
    pub(crate) fn sgd_call(&self, call: Sgd<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Sgd { len, lr, momentum, weight_decay, nesterov, grad, param, velocity } = call;
        let (param, velocity) = (&*param, velocity.map(|v| &*v));
        let w = width(&[len]);
        for part in self.parts(len) {
            let words = Words::new()
                .all(&[part.start / w, part.end / w])
                .f(lr)
                .f(momentum)
                .f(weight_decay)
                .all(&[usize::from(nesterov), usize::from(velocity.is_some())]);
            let writes = [Some(param.items(&part, 1)), velocity.map(|v| v.items(&part, 1))];
            self.spread(&SGD, w, &[], words, (&[Some(grad.items(&part, 1))], &writes), part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn adam_call(&self, call: Adam<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Adam { len, lr, beta1, beta2, eps, weight_decay, decoupled, step, .. } = call;
        let (grad, param, first, second) = (call.grad, &*call.param, &*call.first, &*call.second);
        let size = (f64::from(lr) / correction(beta1, step)) as f32;
        let root = correction(beta2, step).sqrt() as f32;
        let (shrink, penalty) = if decoupled { (1.0 - lr * weight_decay, 0.0) } else { (1.0, weight_decay) };
        let w = width(&[len]);
        for part in self.parts(len) {
            let words = Words::new().all(&[part.start / w, part.end / w]);
            let words = [beta1, beta2, eps, penalty, shrink, size, root].into_iter().fold(words, Words::f);
            let writes = [param, first, second].map(|b| Some(b.items(&part, 1)));
            self.spread(&ADAM, w, &[], words, (&[Some(grad.items(&part, 1))], &writes), part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn rms_prop_call(&self, call: RmsProp<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let RmsProp { len, lr, alpha, eps, momentum, weight_decay, .. } = call;
        let (grad, param, square) = (call.grad, &*call.param, &*call.square);
        let (velocity, mean) = (call.velocity.map(|v| &*v), call.mean.map(|m| &*m));
        let w = width(&[len]);
        for part in self.parts(len) {
            let words = Words::new().all(&[part.start / w, part.end / w]);
            let words =
                [lr, alpha, 1.0 - alpha, eps, momentum, weight_decay].into_iter().fold(words, Words::f);
            let words = words.all(&[usize::from(velocity.is_some()), usize::from(mean.is_some())]);
            let writes = [Some(param), Some(square), velocity, mean].map(|b| b.map(|b| b.items(&part, 1)));
            self.spread(&RMS_PROP, w, &[], words, (&[Some(grad.items(&part, 1))], &writes), part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn lamb_call(&self, call: Lamb<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Lamb { len, lr, beta1, beta2, eps, weight_decay, step, .. } = call;
        call.squares.half = false;
        let (grad, param, first, second) = (call.grad, &*call.param, &*call.first, &*call.second);
        let squares = &*call.squares;
        let numbers = [
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            eps,
            weight_decay,
            (1.0 / correction(beta1, step)) as f32,
            correction(beta2, step).sqrt() as f32,
            lr,
        ];
        let numbers = |words: Words| numbers.into_iter().fold(words, Words::f);
        let (w, pieces) = (width(&[len]), self.parts(len));
        let threads = self.summing_threads(&pieces, w, 2);
        let count = threads * pieces.len();
        self.with_workspace(0, 2 * count, |workspace| {
            let sums = workspace.span(2 * count);
            for (i, piece) in pieces.iter().enumerate() {
                let words = numbers(Words::new().all(&[piece.start / w, piece.end / w]));
                let words = words.all(&[threads, i * threads, count]);
                let reads = [grad, param].map(|b| Some(b.items(piece, 1)));
                let writes = [Some(first.items(piece, 1)), Some(second.items(piece, 1)), Some(sums)];
                self.spread(&LAMB_MOMENTS, w, &[], words, (&reads, &writes), threads)?;
            }
            self.total(sums, 2, count, false, squares.span(2))
        })?;
        for piece in &pieces {
            let words = numbers(Words::new().all(&[piece.start / w, piece.end / w]));
            let reads = [Some(first.items(piece, 1)), Some(second.items(piece, 1)), Some(squares.span(2))];
            let writes = [Some(param.items(piece, 1))];
            self.spread(&LAMB, w, &[], words, (&reads, &writes), piece.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn clip_call(&self, call: Clip<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Clip { len, limit, squares, x } = call;
        let (norm, max, eps) = match limit {
            Limit::Norm { max, eps } => (1, max, eps),
            Limit::Value { max } => (0, max, 0.0),
            _ => {
                let what = format!("the limit {limit:?}");
                return Err(KernelError::Unsupported { device: self.device(), what });
            }
        };
        let w = width(&[len]);
        for part in self.parts(len) {
            let words = Words::new().all(&[part.start / w, part.end / w, norm]).f(max).f(eps);
            let operands = (&[squares.map(|b| b.span(1))][..], &[Some(x.items(&part, 1))][..]);
            self.spread(&CLIP, w, &[], words, operands, part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn lerp_call(&self, call: Lerp<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let Lerp { len, weight, x, out } = call;
        let w = width(&[len]);
        for part in self.parts(len) {
            let words = Words::new().all(&[part.start / w, part.end / w]).f(weight);
            let operands = (&[Some(x.items(&part, 1))][..], &[Some(out.items(&part, 1))][..]);
            self.spread(&LERP, w, &[], words, operands, part.len() / w)?;
        }
        Ok(())
    }
}
