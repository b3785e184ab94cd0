//! Steps of an optimizer within the backward pass, each as soon as its gradient is made.

use defrost_graph::{Graph, ParamId};
use defrost_tensor::{KernelError, Kernels, call};

use crate::buffers::Store;
use crate::compiled::Place;
use crate::optimizer::Optimizer;
use crate::{Rate, Rule};

/// What makes one such step.
pub(crate) struct Stepper<'a, K: Kernels> {
    pub(crate) kernels: &'a K,
    pub(crate) graph: &'a Graph,
    pub(crate) optimizer: &'a mut Optimizer<K::Buf>,
}

impl<K: Kernels> Stepper<'_, K> {
    /// Makes the gradient `gemm` and steps `param` with it piece by piece. Where the kernels cannot, `false`, and there is a
    /// buffer for the gradient.
    pub(crate) fn fused(
        self,
        (rule, rates): (Rule, &[Rate]),
        param: ParamId,
        gemm: &call::Gemm<Place, Place>,
        store: &mut Store<'_, K::Buf>,
    ) -> Result<bool, KernelError> {
        let place = Place::Param(param.index());
        let mut buffer = store.take(place);
        let mut done = Ok(false);
        if let Some(rate) = rates.iter().find(|r| r.param == param) {
            let gemm = gemm.map(&mut |place| store.get(place), &mut |_| ());
            let update =
                self.optimizer.next(self.kernels, self.graph.param(param), rule, rate, (&mut buffer, ()));
            done = update.and_then(|update| self.kernels.gemm_step(gemm, update));
            if let Ok(true) = done {
                self.optimizer.count(param);
            }
        }
        store.put(place, buffer);
        let grad = store.slot(gemm.c);
        if let (Ok(false), None) = (&done, &grad) {
            *grad = Some(self.kernels.alloc(self.graph.param(param).layout())?);
        }
        done
    }

    /// Steps `param` with the gradient at `grad`. One without a rate stays as it is.
    pub(crate) fn step(
        self,
        (rule, rates): (Rule, &[Rate]),
        param: ParamId,
        grad: Place,
        store: &mut Store<'_, K::Buf>,
    ) -> Result<(), KernelError> {
        let Some(rate) = rates.iter().find(|r| r.param == param) else { return Ok(()) };
        let place = Place::Param(param.index());
        let mut buffer = store.take(place);
        let operands = (&mut buffer, store.get(grad));
        let update = self.optimizer.next(self.kernels, self.graph.param(param), rule, rate, operands);
        let result = update.and_then(|update| update.run(self.kernels));
        if result.is_ok() {
            self.optimizer.count(param);
        }
        store.put(place, buffer);
        result
    }
}
