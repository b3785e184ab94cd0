//! The front of a plan, part by part of the batch.

use defrost_graph::Origin;
use defrost_plan::Plan;
use defrost_tensor::{Kernels, Layout};

use crate::ExecError;
use crate::arena::Gap;
use crate::compiled::Compiled;
use crate::interpreter::{Interpreter, Key, Wanted};

impl<K: Kernels> Interpreter<K> {
    /// Makes sure that the parts of the front of `key`'s plan are there. They read its pictures and write its value: neither
    /// has a buffer in them. They fold nothing: its own setup is for them too.
    pub(crate) fn prepare_front(&mut self, key: Key) -> Result<(), ExecError> {
        let Some(front) = &self.plans[&key].plan.front else { return Ok(()) };
        let wanted = Some(Wanted::Front(front.node));
        let parts: Vec<Plan> = (front.parts(key.0).map(|(plan, _)| plan))
            .filter(|plan| !self.plans.contains_key(&(plan.batch, wanted)))
            .cloned()
            .collect();
        for plan in parts {
            let input = plan.values.iter().find(|(_, info)| info.origin == Origin::Input);
            let lent: Vec<_> = input.map(|(value, _)| value).into_iter().chain([plan.output]).collect();
            let n = plan.batch;
            let compiled = self.reserve(plan, &lent).map_err(|e| self.no_room(key, e))?;
            self.plans.insert((n, wanted), compiled);
        }
        Ok(())
    }

    /// Runs the front of `key`'s plan, if it has one. Each part is lent its pictures and its rows of the value.
    pub(crate) fn run_front(&mut self, key: Key) -> Result<(), ExecError> {
        let whole = &self.plans[&key];
        let (Some(front), Some(tools)) = (&whole.plan.front, self.kernels.splitter()) else { return Ok(()) };
        let (each, wanted) = (front.plan.batch, Some(Wanted::Front(front.node)));
        let image = |layout: Layout, n: usize| layout.len() / n;
        let ends = |compiled: &Compiled<K::Buf>, value| {
            let input = compiled.find(Origin::Input).expect("a front reads the pictures");
            [input, compiled.place(value).0]
        };
        let from = ends(whole, front.value);
        let lens = [self.graph.input_shape().image_len(), image(whole.place(front.value).1, key.0)];
        for first in (0..key.0).step_by(each) {
            let n = each.min(key.0 - first);
            let part = (n, wanted);
            let to = ends(&self.plans[&part], self.plans[&part].plan.output);
            let mut gaps = Vec::with_capacity(2);
            for ((from, to), len) in from.into_iter().zip(to).zip(lens) {
                let buffer = self.slot_mut(key, from).take().expect("buffers are in place between runs");
                let (piece, gap) = Gap::cut(tools, buffer, first * len..(first + n) * len);
                *self.slot_mut(part, to) = Some(piece);
                gaps.push((from, to, gap));
            }
            let result = self.execute(part, |c| (&c.suffix, &c.plan.suffix), None);
            for (from, to, gap) in gaps {
                let piece = self.slot_mut(part, to).take().expect("a run puts back what it takes");
                *self.slot_mut(key, from) = Some(gap.close(tools, piece));
            }
            result.map_err(|e| self.no_room(key, e))?;
        }
        Ok(())
    }
}
