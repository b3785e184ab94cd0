//! Batch normalisation: statistics and gradients in two-stage sums, then one pass over the activation.

use std::ops::Range;

use defrost_tensor::call::{ActivateGrad, FoldNorm, NormEval, NormEvalGrad, NormTrain, NormTrainGrad};
use defrost_tensor::{Activation, KernelError, RunningVariance, Shape4};

use super::reduce::{CHANNEL_TREE, CHUNK};
use super::{COMMON, Chunks, activation, width};
use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::Source;

static MOMENTS: Source = Source {
    name: "moments",
    parts: &[COMMON, CHUNK, include_str!("../shaders/norm/moments.wgsl")],
    reads: 1,
    writes: 1,
};
static MOMENTS_END: Source = Source {
    name: "moments, end",
    parts: &[include_str!("../shaders/norm/moments_end.wgsl")],
    reads: 1,
    writes: 4,
};
static APPLY: Source = Source {
    name: "norm",
    parts: &[COMMON, include_str!("../shaders/norm/apply.wgsl")],
    reads: 6,
    writes: 1,
};
static GRAD_SUMS: Source = Source {
    name: "norm gradient sums",
    parts: &[COMMON, CHUNK, include_str!("../shaders/norm/grad_sums.wgsl")],
    reads: 6,
    writes: 1,
};
static GRAD_END: Source = Source {
    name: "norm gradient sums, end",
    parts: &[CHANNEL_TREE, include_str!("../shaders/norm/grad_end.wgsl")],
    reads: 1,
    writes: 3,
};
static GRAD_INPUT: Source = Source {
    name: "norm grad input",
    parts: &[COMMON, include_str!("../shaders/norm/grad_input.wgsl")],
    reads: 7,
    writes: 1,
};
static FOLD: Source =
    Source { name: "fold", parts: &[COMMON, include_str!("../shaders/norm/fold.wgsl")], reads: 6, writes: 2 };

/// What normalises: the mean, and either inverse deviations or variances with what is added to them.
#[derive(Clone, Copy)]
struct Statistics<'a> {
    mean: &'a WgpuBuf,
    spread: &'a WgpuBuf,
    variances: bool,
    eps: f32,
}

/// The gradients of either normalisation.
struct Gradients<'a> {
    shape: Shape4,
    activation: Activation,
    statistics: Statistics<'a>,
    x: Option<&'a WgpuBuf>,
    weight: &'a WgpuBuf,
    grad_out: &'a WgpuBuf,
    out: Option<&'a WgpuBuf>,
    /// The shift, where `x` and it say what the activation passes, so that `out` need not be read.
    shift: Option<&'a WgpuBuf>,
    grad_in: Option<&'a WgpuBuf>,
    accumulate: bool,
    grad_weight: Option<&'a WgpuBuf>,
    grad_bias: Option<&'a WgpuBuf>,
    accumulate_params: bool,
}

/// A buffer that 32-bit numbers are about to be written to.
fn single(buf: Option<&mut WgpuBuf>) -> Option<&WgpuBuf> {
    buf.map(|buf| {
        buf.half = false;
        &*buf
    })
}

impl WgpuKernels {
    pub(crate) fn norm_train_call(&self, call: NormTrain<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let NormTrain { desc, shape, activation, x, weight, bias, residual, out, mean, inv_std, .. } = call;
        let (running_mean, running_var) = (single(call.running_mean), single(call.running_var));
        (mean.half, inv_std.half, out.half) = (false, false, self.gpu().half);
        let (mean, inv_std) = (&*mean, &*inv_std);
        let (c, positions) = (shape.c, shape.rows());
        let w = width(&[c]);
        let chunks = Chunks::new(positions, c / w, self.crowd(), self.room() / (2 * c));
        self.with_workspace(0, chunks.count * 2 * c, |workspace| {
            let parts = workspace.span(chunks.count * 2 * c);
            self.over_chunks(&MOMENTS, shape, chunks, |words| words, |seen| [Some(x.items(seen, c))], parts)?;
            let words = Words::new()
                .all(&[c / w, chunks.count, positions, chunks.rows])
                .f(desc.eps)
                .f(desc.momentum)
                .u(usize::from(desc.running_variance == RunningVariance::Unbiased))
                .all(&[usize::from(running_mean.is_some()), usize::from(running_var.is_some())]);
            let writes = [Some(mean), Some(inv_std), running_mean, running_var].map(|b| b.map(|b| b.span(c)));
            self.trees(&MOMENTS_END, w, words, (&[Some(parts)], &writes), c / w)
        })?;
        let statistics = Statistics { mean, spread: inv_std, variances: false, eps: 0.0 };
        self.normalise(shape, activation, statistics, [x, weight, bias], residual, out)
    }

    pub(crate) fn norm_eval_call(&self, call: NormEval<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let NormEval { desc, shape, activation, x, weight, bias, running_mean, running_var, .. } = call;
        let (residual, out) = (call.residual, call.out);
        out.half = self.gpu().half;
        let statistics =
            Statistics { mean: running_mean, spread: running_var, variances: true, eps: desc.eps };
        self.normalise(shape, activation, statistics, [x, weight, bias], residual, out)
    }

    fn normalise(
        &self,
        shape: Shape4,
        which: Activation,
        s: Statistics<'_>,
        [x, weight, bias]: [&WgpuBuf; 3],
        residual: Option<&WgpuBuf>,
        out: &WgpuBuf,
    ) -> Result<(), KernelError> {
        let c = shape.c;
        let w = width(&[c]);
        for part in self.parts(shape.len()) {
            let words = Words::new()
                .all(&[part.start / w, part.end / w, c / w, usize::from(s.variances)])
                .f(s.eps)
                .u(activation(which))
                .u(usize::from(residual.is_some()));
            let [weight, bias, mean, spread] = [weight, bias, s.mean, s.spread].map(|b| Some(b.span(c)));
            let residual = residual.map(|b| b.part(part.start, part.len()));
            let reads = [Some(x.part(part.start, part.len())), weight, bias, mean, spread, residual];
            let writes = [Some(out.part(part.start, part.len()))];
            self.spread(&APPLY, w, &[], words, (&reads, &writes), part.len() / w)?;
        }
        Ok(())
    }

    pub(crate) fn norm_train_grad_call<'a>(
        &self,
        mut call: NormTrainGrad<&'a WgpuBuf, &'a mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        // What passes is wanted for itself: then the rest reads it.
        if let Some(grad_in) = call.grad_residual.take() {
            let (activation, len, out, grad_out) =
                (call.activation, call.shape.len(), call.out.unwrap_or(call.grad_out), call.grad_out);
            let masked =
                ActivateGrad { activation, len, accumulate: false, out, grad_out, grad_in: &mut *grad_in };
            self.activate_grad_call(masked)?;
            (call.grad_out, call.activation, call.out, call.bias) =
                (grad_in, Activation::Identity, None, None);
        }
        self.norm_gradients(&Gradients {
            shape: call.shape,
            activation: call.activation,
            statistics: Statistics { mean: call.mean, spread: call.inv_std, variances: false, eps: 0.0 },
            x: Some(call.x),
            weight: call.weight,
            grad_out: call.grad_out,
            out: call.out,
            shift: call.bias,
            grad_in: single(call.grad_in),
            accumulate: call.accumulate,
            grad_weight: single(call.grad_weight),
            grad_bias: single(call.grad_bias),
            accumulate_params: call.accumulate_params,
        })
    }

    pub(crate) fn norm_eval_grad_call(
        &self,
        call: NormEvalGrad<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let (mean, spread) = (call.running_mean, call.running_var);
        self.norm_gradients(&Gradients {
            shape: call.shape,
            activation: call.activation,
            statistics: Statistics { mean, spread, variances: true, eps: call.desc.eps },
            x: call.x,
            weight: call.weight,
            grad_out: call.grad_out,
            out: call.out,
            shift: None,
            grad_in: single(call.grad_in),
            accumulate: call.accumulate,
            grad_weight: single(call.grad_weight),
            grad_bias: single(call.grad_bias),
            accumulate_params: call.accumulate_params,
        })
    }

    fn norm_gradients(&self, g: &Gradients<'_>) -> Result<(), KernelError> {
        let (c, positions, s) = (g.shape.c, g.shape.rows(), g.statistics);
        let w = width(&[c]);
        let through_statistics = g.grad_in.is_some() && !s.variances;
        let wants_sums = through_statistics || g.grad_weight.is_some() || g.grad_bias.is_some();
        let [mean, spread, weight] = [s.mean, s.spread, g.weight].map(|b| Some(b.span(c)));
        let shift = g.shift.map(|b| b.span(c));
        self.with_workspace(1, 2 * c, |sums| {
            if wants_sums {
                let chunks = Chunks::new(positions, c / w, self.crowd(), self.room() / (2 * c));
                self.with_workspace(0, chunks.count * 2 * c, |workspace| {
                    let parts = workspace.span(chunks.count * 2 * c);
                    let more = |words: Words| {
                        let words = words.u(usize::from(s.variances)).f(s.eps);
                        let given = [g.x.is_some(), shift.is_some()].map(usize::from);
                        words.u(activation(g.activation)).all(&given)
                    };
                    let reads = |seen: &Range<usize>| {
                        let [x, out] = [g.x, g.out].map(|b| b.map(|b| b.items(seen, c)));
                        [x, mean, spread, Some(g.grad_out.items(seen, c)), shift.or(out), weight]
                    };
                    self.over_chunks(&GRAD_SUMS, g.shape, chunks, more, reads, parts)?;
                    let [to_weight, to_bias] = [g.grad_weight, g.grad_bias];
                    let words = Words::new()
                        .all(&[c / w, chunks.count, usize::from(g.accumulate_params)])
                        .all(&[usize::from(to_weight.is_some()), usize::from(to_bias.is_some())]);
                    let writes =
                        [to_weight.map(|b| b.span(c)), to_bias.map(|b| b.span(c)), Some(sums.span(2 * c))];
                    self.trees(&GRAD_END, w, words, (&[Some(parts)], &writes), c / w)
                })?;
            }
            let Some(grad_in) = g.grad_in else { return Ok(()) };
            for part in self.parts(g.shape.len()) {
                let words = Words::new()
                    .all(&[part.start / w, part.end / w, c / w, usize::from(s.variances)])
                    .f(s.eps)
                    .u(activation(g.activation))
                    .f(1.0 / positions as f32)
                    .all(&[g.accumulate, shift.is_some()].map(usize::from));
                let x = g.x.filter(|_| !s.variances).map(|b| b.items(&part, 1));
                let sums = through_statistics.then(|| sums.span(2 * c));
                let reads = [
                    x,
                    weight,
                    mean,
                    spread,
                    Some(g.grad_out.items(&part, 1)),
                    shift.or(g.out.map(|b| b.items(&part, 1))),
                    sums,
                ];
                self.spread(
                    &GRAD_INPUT,
                    w,
                    &[],
                    words,
                    (&reads, &[Some(grad_in.items(&part, 1))]),
                    part.len() / w,
                )?;
            }
            Ok(())
        })
    }

    pub(crate) fn fold_norm_call(&self, call: FoldNorm<&WgpuBuf, &mut WgpuBuf>) -> Result<(), KernelError> {
        let FoldNorm { desc, conv, weight, norm_weight, norm_bias, running_mean, running_var, bias, .. } =
            call;
        (call.folded_weight.half, call.folded_bias.half) = (false, false);
        let (c, len) = (desc.channels, conv.weight_shape().iter().product());
        let w = width(&[c]);
        let words = Words::new().all(&[len / w, c / w]).f(desc.eps).u(usize::from(bias.is_some()));
        let [scale, shift, mean, var] =
            [norm_weight, norm_bias, running_mean, running_var].map(|b| Some(b.span(c)));
        let reads = [Some(weight.span(len)), scale, shift, mean, var, bias.map(|b| b.span(c))];
        let writes = [Some(call.folded_weight.span(len)), Some(call.folded_bias.span(c))];
        self.spread(&FOLD, w, &[], words, (&reads, &writes), len / w)
    }
}
