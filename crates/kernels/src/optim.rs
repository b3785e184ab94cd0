//! Optimizer steps, as PyTorch and timm take them; limits on gradients, averages of weights.

use defrost_tensor::Limit;

use crate::Threads;
use crate::scratch::{carve, floats_for};
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

/// The constants of [`rms_prop`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f32,
    /// Smoothing of the squared gradient.
    pub alpha: f32,
    /// Added to the root.
    pub eps: f32,
    /// Momentum; read only with a velocity.
    pub momentum: f32,
    /// L2 penalty.
    pub weight_decay: f32,
}

/// `g = grad + weight_decay · p`, `s = alpha · s + (1 - alpha) · g²`, `p -= lr · g / (√s + eps)`; with `mean`, of the variance
/// `s - mean²`; with `velocity`, `v = momentum · v + g / (…)` and `p -= lr · v`.
///
/// # Panics
/// Where the lengths differ.
pub fn rms_prop(
    threads: &Threads,
    step: RmsProp,
    grad: &[f32],
    param: &mut [f32],
    square: &mut [f32],
    velocity: Option<&mut [f32]>,
    mean: Option<&mut [f32]>,
) {
    let len = param.len();
    let fits = |state: &Option<&mut [f32]>| state.as_ref().is_none_or(|s| s.len() == len);
    assert_eq!((grad.len(), square.len()), (len, len), "gradient and state");
    assert!(fits(&velocity) && fits(&mean), "state");
    let square = Parts::new(square, TASK);
    let velocity = velocity.map(|v| Parts::new(v, TASK));
    let mean = mean.map(|m| Parts::new(m, TASK));
    threads.for_chunks(param, TASK, |i, p| {
        // SAFETY: each task takes its own parts.
        let (s, v, m) =
            unsafe { (square.get(i), velocity.as_ref().map(|v| v.get(i)), mean.as_ref().map(|m| m.get(i))) };
        rms_prop_part(threads.isa(), step, &grad[i * TASK..][..p.len()], p, s, v, m);
    });
}

dispatch!(
    fn rms_prop_part(
        step: RmsProp,
        grad: &[f32],
        p: &mut [f32],
        s: &mut [f32],
        v: Option<&mut [f32]>,
        m: Option<&mut [f32]>,
    ) = rms_prop_body
);

#[inline(always)]
fn rms_prop_body<V: Vector>(
    step: RmsProp,
    grad: &[f32],
    param: &mut [f32],
    square: &mut [f32],
    mut velocity: Option<&mut [f32]>,
    mut mean: Option<&mut [f32]>,
) {
    /// Elements between two questions of what there is.
    const BLOCK: usize = 64;
    let mut moved = [0.0f32; BLOCK];
    let blocks = param.chunks_mut(BLOCK).zip(square.chunks_mut(BLOCK)).zip(grad.chunks(BLOCK));
    for (i, ((p, s), g)) in blocks.enumerate() {
        let span = i * BLOCK..i * BLOCK + p.len();
        let moved = &mut moved[..p.len()];
        for (((u, s), &g), &p) in moved.iter_mut().zip(&mut *s).zip(g).zip(&*p) {
            *u = g + step.weight_decay * p;
            *s = step.alpha * *s + (1.0 - step.alpha) * (*u * *u);
        }
        match &mut mean {
            Some(mean) => {
                for ((u, &s), m) in moved.iter_mut().zip(&*s).zip(&mut mean[span.clone()]) {
                    *m += (1.0 - step.alpha) * (*u - *m);
                    *u /= (s - *m * *m).max(0.0).sqrt() + step.eps;
                }
            }
            None => moved.iter_mut().zip(&*s).for_each(|(u, s)| *u /= s.sqrt() + step.eps),
        }
        if let Some(velocity) = &mut velocity {
            for (u, v) in moved.iter_mut().zip(&mut velocity[span]) {
                *v = step.momentum * *v + *u;
                *u = *v;
            }
        }
        p.iter_mut().zip(moved).for_each(|(p, u)| *p -= step.lr * *u);
    }
}

/// The constants of [`lamb`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Weight decay, part of what is scaled.
    pub weight_decay: f32,
    /// This step's number, from 1.
    pub step: u32,
}

/// What a step of [`lamb`] is made of, besides the moments.
#[derive(Clone, Copy)]
struct LambStep {
    lamb: Lamb,
    /// `1 / (1 - beta1^step)`.
    scale: f32,
    /// `√(1 - beta2^step)`.
    root: f32,
}

impl LambStep {
    #[inline(always)]
    fn update(&self, p: f32, m: f32, v: f32) -> f32 {
        self.scale * m / (v.sqrt() / self.root + self.lamb.eps) + self.lamb.weight_decay * p
    }
}

/// Floats of workspace that [`lamb`] needs.
pub fn lamb_workspace(len: usize) -> usize {
    floats_for::<f64>(2 * len.div_ceil(TASK))
}

/// LAMB (You et al., 2020) as in timm: Adam's update `u` with decay, `p -= lr · ‖p‖ / ‖u‖ · u`. Without decay the step is
/// not scaled. Returns `‖p‖²` before the step and `‖u‖²`.
///
/// The update is computed twice, once for its norm and once to take the step: cheaper than storing it.
///
/// # Panics
/// Where the lengths differ.
pub fn lamb(
    threads: &Threads,
    lamb: Lamb,
    grad: &[f32],
    param: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    workspace: &mut [f32],
) -> [f64; 2] {
    let len = param.len();
    assert_eq!((grad.len(), first.len(), second.len()), (len, len, len), "state");
    let correction = |beta: f32| 1.0 - f64::from(beta).powi(lamb.step as i32);
    let scale = (1.0 / correction(lamb.beta1)) as f32;
    let step = LambStep { lamb, scale, root: correction(lamb.beta2).sqrt() as f32 };
    let (partial, _) = carve::<f64>(workspace, 2 * len.div_ceil(TASK));
    let (first, second) = (Parts::new(first, TASK), Parts::new(second, TASK));
    let whole: &[f32] = param;
    threads.for_chunks(partial, 2, |i, sums| {
        let p = &whole[i * TASK..len.min((i + 1) * TASK)];
        // SAFETY: each task takes its own parts.
        let (m, v) = unsafe { (first.get(i), second.get(i)) };
        let both = lamb_moments(threads.isa(), step, &grad[i * TASK..][..p.len()], p, m, v);
        sums.copy_from_slice(&both);
    });
    let [weights, updates] = [0, 1].map(|which| partial.iter().skip(which).step_by(2).sum::<f64>());
    let adapts = lamb.weight_decay != 0.0 && weights > 0.0 && updates > 0.0;
    let trust = if adapts { (weights / updates).sqrt() } else { 1.0 };
    let size = (f64::from(lamb.lr) * trust) as f32;
    threads.for_chunks(param, TASK, |i, p| {
        // SAFETY: each task takes its own parts.
        let (m, v) = unsafe { (first.get(i), second.get(i)) };
        lamb_part(threads.isa(), step, size, p, m, v);
    });
    [weights, updates]
}

dispatch!(
    fn lamb_moments(step: LambStep, grad: &[f32], p: &[f32], m: &mut [f32], v: &mut [f32]) -> [f64; 2]
        = lamb_moments_body
);

#[inline(always)]
fn lamb_moments_body<V: Vector>(
    step: LambStep,
    grad: &[f32],
    param: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) -> [f64; 2] {
    /// As many running sums as hide the latency of the addition.
    const LANES: usize = 16;
    let (mut weights, mut updates) = ([0.0f64; LANES], [0.0f64; LANES]);
    let moments = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
    for ((p, g), (m, v)) in param.chunks(LANES).zip(grad.chunks(LANES)).zip(moments) {
        for (i, ((&p, &g), (m, v))) in p.iter().zip(g).zip(m.iter_mut().zip(v)).enumerate() {
            *m += (1.0 - step.lamb.beta1) * (g - *m);
            *v = step.lamb.beta2 * *v + (1.0 - step.lamb.beta2) * (g * g);
            let u = step.update(p, *m, *v);
            weights[i] += f64::from(p) * f64::from(p);
            updates[i] += f64::from(u) * f64::from(u);
        }
    }
    [weights.iter().sum(), updates.iter().sum()]
}

dispatch!(
    fn lamb_part(step: LambStep, size: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32]) = lamb_body
);

#[inline(always)]
fn lamb_body<V: Vector>(step: LambStep, size: f32, param: &mut [f32], first: &mut [f32], second: &mut [f32]) {
    for ((p, &mut m), &mut v) in param.iter_mut().zip(first).zip(second) {
        *p -= size * step.update(*p, m, v);
    }
}

/// Limits `x`; `squares` is `Σ x²` over all that a norm limits together.
pub fn clip(threads: &Threads, limit: Limit, squares: Option<f32>, x: &mut [f32]) {
    match limit {
        Limit::Norm { max, eps } => {
            let squares = squares.expect("a norm is limited by the sum of squares");
            let factor = (f64::from(max) / (f64::from(squares).sqrt() + f64::from(eps))) as f32;
            // Not a number is not at least 1 either.
            if factor >= 1.0 {
                return;
            }
            threads.for_chunks(x, TASK, |_, x| scale(threads.isa(), factor, x));
        }
        Limit::Value { max } => threads.for_chunks(x, TASK, |_, x| cut(threads.isa(), max, x)),
        other => unreachable!("the backend says that it does not know {other:?}"),
    }
}

dispatch!(fn scale(factor: f32, x: &mut [f32]) = scale_body);

#[inline(always)]
fn scale_body<V: Vector>(factor: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= factor);
}

dispatch!(fn cut(max: f32, x: &mut [f32]) = cut_body);

#[inline(always)]
fn cut_body<V: Vector>(max: f32, x: &mut [f32]) {
    // `clamp` keeps NaN.
    x.iter_mut().for_each(|x| *x = x.clamp(-max, max));
}

/// `out += weight · (x - out)`.
///
/// # Panics
/// Where the lengths differ.
pub fn lerp(threads: &Threads, weight: f32, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "values and average");
    threads
        .for_chunks(out, TASK, |i, out| lerp_part(threads.isa(), weight, &x[i * TASK..][..out.len()], out));
}

dispatch!(fn lerp_part(weight: f32, x: &[f32], out: &mut [f32]) = lerp_body);

#[inline(always)]
fn lerp_body<V: Vector>(weight: f32, x: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(o, &x)| *o += weight * (x - *o));
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

    #[test]
    fn long_steps_do_not_depend_on_the_threads() {
        use crate::testing::random;
        let len = 3 * TASK + 5;
        let grad = random(len, 1);
        let lamb_step = Lamb { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, step: 3 };
        let rms_step = RmsProp { lr: 0.1, alpha: 0.9, eps: 1e-6, momentum: 0.9, weight_decay: 0.1 };
        let run = |count| {
            let threads = Threads::new(count);
            let positive: Vec<f32> = random(len, 3).iter().map(|v| v * v + 1.0).collect();
            let (mut p, mut m, mut v, mut c) = (random(len, 2), random(len, 4), positive, random(len, 5));
            let mut workspace = vec![0.0; lamb_workspace(len)];
            let squares = lamb(&threads, lamb_step, &grad, &mut p, &mut m, &mut v, &mut workspace);
            rms_prop(&threads, rms_step, &grad, &mut p, &mut v, Some(&mut m), Some(&mut c));
            lerp(&threads, 0.25, &grad, &mut p);
            clip(&threads, Limit::Norm { max: 1.0, eps: 1e-6 }, Some(squares[1] as f32), &mut m);
            clip(&threads, Limit::Value { max: 0.25 }, None, &mut c);
            assert!(c.iter().all(|c| c.abs() <= 0.25));
            [p, m, v, c].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert!(run(1) == run(2));
    }

    #[test]
    fn limits_keep_what_is_no_number_and_what_is_small() {
        let threads = Threads::serial();
        let limit = Limit::Norm { max: 1.0, eps: 0.0 };
        for (squares, want) in [(0.5, [3.0, 4.0]), (25.0, [0.6, 0.8]), (f32::INFINITY, [0.0, 0.0])] {
            let mut x = [3.0, 4.0];
            clip(&threads, limit, Some(squares), &mut x);
            assert_eq!(x, want);
        }
        let mut x = [3.0, f32::NAN];
        clip(&threads, limit, Some(f32::NAN), &mut x);
        assert!(x.iter().all(|x| x.is_nan()));
        let mut x = [3.0, f32::NAN];
        clip(&threads, Limit::Value { max: 2.0 }, None, &mut x);
        assert!(x[0] == 2.0 && x[1].is_nan());
    }
}
