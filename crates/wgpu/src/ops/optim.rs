//! Optimizers: one pass over a parameter, its gradient and its state.

use defrost_tensor::KernelError;
use defrost_tensor::call::{Adam, Sgd};

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
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(step as i32);
        let size = (f64::from(lr) / correction(beta1)) as f32;
        let root = correction(beta2).sqrt() as f32;
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
}
