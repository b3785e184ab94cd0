//! Optimizer steps, as PyTorch takes them.

use crate::Threads;
use crate::simd::{Vector, dispatch};
use crate::threads::Parts;

/// Elements of a task.
const TASK: usize = 1 << 14;

/// The constants of [`sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// Momentum; 0 for none.
    pub momentum: f32,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Nesterov's variant.
    pub nesterov: bool,
}

/// `g = grad + weight_decay · p`, `v = momentum · v + g`, `p -= lr · (nesterov ? g + momentum · v : v)`.
///
/// # Panics
/// Where the lengths differ, or momentum has no velocity.
pub fn sgd(threads: &Threads, step: Sgd, grad: &[f32], param: &mut [f32], velocity: Option<&mut [f32]>) {
    assert_eq!(grad.len(), param.len(), "gradient and parameter");
    let Some(velocity) = velocity.filter(|_| step.momentum != 0.0) else {
        assert!(step.momentum == 0.0, "momentum needs a velocity");
        threads
            .for_chunks(param, TASK, |i, p| sgd_plain(threads.isa(), step, &grad[i * TASK..][..p.len()], p));
        return;
    };
    assert_eq!(grad.len(), velocity.len(), "gradient and velocity");
    let velocity = Parts::new(velocity, TASK);
    threads.for_chunks(param, TASK, |i, p| {
        // SAFETY: each task takes its own part.
        sgd_part(threads.isa(), step, &grad[i * TASK..][..p.len()], p, unsafe { velocity.get(i) });
    });
}

dispatch!(fn sgd_plain(step: Sgd, grad: &[f32], param: &mut [f32]) = sgd_plain_body);

#[inline(always)]
fn sgd_plain_body<V: Vector>(step: Sgd, grad: &[f32], param: &mut [f32]) {
    for (p, &g) in param.iter_mut().zip(grad) {
        *p -= step.lr * (g + step.weight_decay * *p);
    }
}

dispatch!(fn sgd_part(step: Sgd, grad: &[f32], param: &mut [f32], velocity: &mut [f32]) = sgd_body);

#[inline(always)]
fn sgd_body<V: Vector>(step: Sgd, grad: &[f32], param: &mut [f32], velocity: &mut [f32]) {
    for ((p, v), &g) in param.iter_mut().zip(velocity).zip(grad) {
        let g = g + step.weight_decay * *p;
        *v = step.momentum * *v + g;
        *p -= step.lr * if step.nesterov { g + step.momentum * *v } else { *v };
    }
}

/// The constants of [`adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// `p *= 1 - lr · weight_decay` before the step (AdamW), instead of `grad += weight_decay · p`.
    pub decoupled: bool,
    /// This step's number, from 1.
    pub step: u32,
}

/// Adam (Kingma and Ba, 2015) with bias correction; AdamW (Loshchilov and Hutter, 2019) where `decoupled`.
///
/// # Panics
/// Where the lengths differ.
pub fn adam(
    threads: &Threads,
    step: Adam,
    grad: &[f32],
    param: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    assert_eq!((grad.len(), first.len(), second.len()), (param.len(), param.len(), param.len()), "state");
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(step.step as i32);
    let size = (f64::from(step.lr) / correction(step.beta1)) as f32;
    let root = correction(step.beta2).sqrt() as f32;
    let (first, second) = (Parts::new(first, TASK), Parts::new(second, TASK));
    threads.for_chunks(param, TASK, |i, p| {
        // SAFETY: each task takes its own parts.
        let (m, v) = unsafe { (first.get(i), second.get(i)) };
        adam_part(threads.isa(), step, size, root, &grad[i * TASK..][..p.len()], p, m, v);
    });
}

dispatch!(
    fn adam_part(step: Adam, size: f32, root: f32, grad: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32])
        = adam_body
);

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn adam_body<V: Vector>(
    step: Adam,
    size: f32,
    root: f32,
    grad: &[f32],
    param: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let (shrink, penalty) = match step.decoupled {
        true => (1.0 - step.lr * step.weight_decay, 0.0),
        false => (1.0, step.weight_decay),
    };
    for (((p, m), v), &g) in param.iter_mut().zip(first).zip(second).zip(grad) {
        let g = g + penalty * *p;
        *p *= shrink;
        *m += (1.0 - step.beta1) * (g - *m);
        *v = step.beta2 * *v + (1.0 - step.beta2) * (g * g);
        *p -= size * *m / (v.sqrt() / root + step.eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps against the formulas in double precision.
    #[test]
    fn steps_follow_the_formulas() {
        let threads = Threads::serial();
        let grads = [0.5f32, -1.0, 2.0];
        for (momentum, weight_decay, nesterov) in [(0.0, 0.0, false), (0.9, 0.01, false), (0.9, 0.01, true)] {
            let (mut p, mut v) = (1.0f64, 0.0f64);
            let (mut param, mut velocity) = ([1.0f32], [0.0f32]);
            for g in grads {
                let step = Sgd { lr: 0.1, momentum, weight_decay, nesterov };
                sgd(&threads, step, &[g], &mut param, Some(&mut velocity));
                let (m, wd) = (f64::from(momentum), f64::from(weight_decay));
                let g = f64::from(g) + wd * p;
                v = m * v + g;
                p -= 0.1 * if nesterov { g + m * v } else { v };
            }
            assert!((f64::from(param[0]) - p).abs() < 1e-6, "{momentum} {nesterov}: {} {p}", param[0]);
        }
        for decoupled in [false, true] {
            let (mut p, mut m, mut v) = (1.0f64, 0.0f64, 0.0f64);
            let (mut param, mut first, mut second) = ([1.0f32], [0.0f32], [0.0f32]);
            for (i, g) in grads.into_iter().enumerate() {
                let step = Adam {
                    lr: 0.1,
                    beta1: 0.9,
                    beta2: 0.99,
                    eps: 1e-5,
                    weight_decay: 0.1,
                    decoupled,
                    step: i as u32 + 1,
                };
                adam(&threads, step, &[g], &mut param, &mut first, &mut second);
                let mut g = f64::from(g);
                if decoupled {
                    p *= 1.0 - 0.1 * 0.1;
                } else {
                    g += 0.1 * p;
                }
                m = 0.9 * m + 0.1 * g;
                v = 0.99 * v + 0.01 * g * g;
                let t = i as i32 + 1;
                p -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.99f64.powi(t))).sqrt() + 1e-5);
            }
            assert!((f64::from(param[0]) - p).abs() < 1e-5, "{decoupled}: {} {p}", param[0]);
        }
    }
}
