//! What an optimizer keeps on the device, and its steps.

use std::collections::HashMap;

use defrost_graph::{Graph, Param, ParamId};
use defrost_tensor::{Call, HostTensor, KernelError, Kernels, Layout, Limit, call};

use crate::buffers::check;
use crate::{Clip, ExecError, Rate, Rule, Update};

/// What is kept for one parameter: see [`Rule`].
struct State<B> {
    kept: [Option<B>; 3],
    step: u32,
}

impl<B> Default for State<B> {
    fn default() -> Self {
        Self { kept: [None, None, None], step: 0 }
    }
}

/// How the names of what is kept end.
const KEPT: [&str; 3] = ["first", "second", "third"];
const STEP: &str = "step";

/// The state of all parameters that were ever updated.
pub(crate) struct Optimizer<B> {
    states: HashMap<ParamId, State<B>>,
    /// Two numbers that calls leave on the device for other calls.
    squares: Option<B>,
}

impl<B> Default for Optimizer<B> {
    fn default() -> Self {
        Self { states: HashMap::new(), squares: None }
    }
}

impl<B> Optimizer<B> {
    /// Whether no parameter has been stepped yet.
    pub(crate) fn is_new(&self) -> bool {
        self.states.is_empty()
    }

    /// The L2 norm of all gradients together.
    pub(crate) fn norm<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        graph: &Graph,
        grads: &[Option<B>],
    ) -> Result<f64, ExecError> {
        let squares = sum_squares(&mut self.squares, kernels, graph, grads)?;
        read_norm(kernels, squares)
    }

    /// Limits the gradients; returns their norm before.
    pub(crate) fn clip<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        graph: &Graph,
        grads: &mut [Option<B>],
        clip: Clip,
    ) -> Result<f64, ExecError> {
        let squares = sum_squares(&mut self.squares, kernels, graph, grads)?;
        match clip {
            Clip::Norm(max) => limit(kernels, graph, grads, Limit::Norm { max, eps: 1e-6 }, Some(squares))?,
            Clip::Value(max) => limit(kernels, graph, grads, Limit::Value { max }, None)?,
        }
        read_norm(kernels, squares)
    }

    /// One step of `rule` for each of `rates` that has a gradient.
    pub(crate) fn apply<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        graph: &Graph,
        rule: Rule,
        rates: &[Rate],
        (params, grads): (&mut [Option<B>], &mut [Option<B>]),
    ) -> Result<(), ExecError> {
        if let Rule::Lamb { max_grad_norm: Some(max), .. } = rule {
            let squares = sum_squares(&mut self.squares, kernels, graph, grads)?;
            limit(kernels, graph, grads, Limit::Norm { max, eps: 0.0 }, Some(squares))?;
        }
        for rate in rates {
            let id = rate.param;
            let Some(grad) = &grads[id.index()] else { continue };
            let param = params[id.index()].as_mut().expect("parameters are in place");
            self.next(kernels, graph.param(id), rule, rate, (param, grad))?.run(kernels)?;
            self.count(id);
        }
        Ok(())
    }

    /// Counts a step that was made.
    pub(crate) fn count(&mut self, param: ParamId) {
        self.states.entry(param).or_default().step += 1;
    }

    /// The call that makes the next step of one parameter, with its gradient or what stands for it.
    pub(crate) fn next<'a, K: Kernels<Buf = B>, R>(
        &'a mut self,
        kernels: &K,
        info: &Param,
        rule: Rule,
        &Rate { param: id, lr, weight_decay }: &Rate,
        (param, grad): (&'a mut B, R),
    ) -> Result<Call<R, &'a mut B>, KernelError> {
        let layout = info.layout();
        let state = self.states.entry(id).or_default();
        let missing = state.kept.iter_mut().zip(rule.keeps()).filter(|(b, keeps)| *keeps && b.is_none());
        for (buffer, _) in missing {
            *buffer = Some(kernels.alloc(layout)?);
        }
        let squares = match rule.needs_squares() {
            true => Some(scalars(&mut self.squares, kernels)?),
            false => None,
        };
        let kept = state.kept.each_mut().map(Option::as_mut);
        let (len, step) = (layout.len(), state.step + 1);
        Ok(rule.call(Update { len, lr, weight_decay, step, grad, param, kept, squares }))
    }

    /// All state by name, in the table's order.
    pub(crate) fn export<K: Kernels<Buf = B>>(
        &self,
        kernels: &K,
        graph: &Graph,
    ) -> Result<Vec<(String, HostTensor)>, ExecError> {
        let mut out = Vec::new();
        for id in graph.param_ids() {
            let (Some(state), param) = (self.states.get(&id), graph.param(id)) else { continue };
            for (ending, buffer) in KEPT.iter().zip(&state.kept) {
                if let Some(buffer) = buffer {
                    out.push((format!("{}.{ending}", param.name), read(kernels, param, buffer)?));
                }
            }
            out.push((format!("{}.{STEP}", param.name), HostTensor::vector(vec![state.step as f32])));
        }
        Ok(out)
    }

    /// Replaces all state.
    pub(crate) fn import<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        graph: &Graph,
        state: &[(String, HostTensor)],
    ) -> Result<(), ExecError> {
        self.states.clear();
        for (name, value) in state {
            let unknown = || ExecError::OptimizerState { name: name.clone() };
            let (param, ending) = name.rsplit_once('.').ok_or_else(unknown)?;
            let id = graph.find_param(param).ok_or_else(unknown)?;
            let layout = graph.param(id).layout();
            let entry = self.states.entry(id).or_default();
            if ending == STEP {
                entry.step = value.data().first().copied().ok_or_else(unknown)? as u32;
                continue;
            }
            let which = KEPT.iter().position(|k| *k == ending).ok_or_else(unknown)?;
            check("optimizer state", 1, layout.len(), value.len())?;
            let mut on_device = kernels.alloc(layout)?;
            kernels.upload(layout, value.data(), &mut on_device)?;
            entry.kept[which] = Some(on_device);
        }
        Ok(())
    }
}

/// The values of a parameter, or of what is kept for it, in the published order.
pub(crate) fn read<K: Kernels>(kernels: &K, param: &Param, buffer: &K::Buf) -> Result<HostTensor, ExecError> {
    let mut host = vec![0.0; param.len()];
    kernels.download(param.layout(), buffer, &mut host)?;
    Ok(HostTensor::new(param.shape.clone(), host).expect("as many values as the parameter has"))
}

fn scalars<'a, K: Kernels>(
    squares: &'a mut Option<K::Buf>,
    kernels: &K,
) -> Result<&'a mut K::Buf, KernelError> {
    if squares.is_none() {
        *squares = Some(kernels.alloc(Layout::Plain(2))?);
    }
    Ok(squares.as_mut().expect("allocated above"))
}

/// `Σ x²` over all gradients, on the device.
fn sum_squares<'a, K: Kernels>(
    squares: &'a mut Option<K::Buf>,
    kernels: &K,
    graph: &Graph,
    grads: &[Option<K::Buf>],
) -> Result<&'a K::Buf, ExecError> {
    let sum = scalars(squares, kernels)?;
    kernels.fill(1, 0.0, sum)?;
    for (grad, param) in grads.iter().zip(graph.params()) {
        if let Some(x) = grad {
            kernels.sum_squares(call::SumSquares { len: param.len(), accumulate: true, x, sum })?;
        }
    }
    Ok(sum)
}

fn read_norm<K: Kernels>(kernels: &K, squares: &K::Buf) -> Result<f64, ExecError> {
    let mut host = [0.0];
    kernels.download(Layout::Plain(1), squares, &mut host)?;
    Ok(f64::from(host[0]).sqrt())
}

fn limit<K: Kernels>(
    kernels: &K,
    graph: &Graph,
    grads: &mut [Option<K::Buf>],
    limit: Limit,
    squares: Option<&K::Buf>,
) -> Result<(), ExecError> {
    for (grad, param) in grads.iter_mut().zip(graph.params()) {
        if let Some(x) = grad {
            kernels.clip(call::Clip { len: param.len(), limit, squares, x })?;
        }
    }
    Ok(())
}
