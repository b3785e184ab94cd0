//! The front: what a frozen body computes first has the largest values, and runs a few pictures at a time.
//!
//! In evaluation a picture's values depend on no other picture. So the calls up to a node through which alone everything
//! behind depends on the image can run part by part of the batch: each part reads its pictures and writes its rows of that
//! node's value, and what lies between takes a part's memory. The calls behind run over the whole batch.

use std::collections::HashMap;

use defrost_graph::{Graph, Instruction, Marking, NodeId, Origin, Pass, Value};

use crate::{Options, Plan, Purpose, cut, need, slots};

/// What a plan runs in parts of the batch, before its other calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Front {
    /// The last node of it.
    pub node: NodeId,
    /// Its value in the plan that holds the front, which keeps a buffer of its own: each part writes its rows.
    pub value: Value,
    /// A part: [`Purpose::Infer`] until `node`, [`Plan::batch`] pictures at a time. What it folds is what the plan that
    /// holds the front has folded.
    pub plan: Box<Plan>,
    /// The last part, where fewer pictures are left for it.
    pub last: Option<Box<Plan>>,
}

impl Front {
    /// The plans of all parts of a batch of `n`, each with how often it runs, in order.
    pub fn parts(&self, n: usize) -> impl Iterator<Item = (&Plan, usize)> {
        let last = self.last.as_deref().map(|plan| (plan, 1));
        std::iter::once((&*self.plan, n / self.plan.batch)).chain(last)
    }
}

/// At most so many parts.
const PARTS: usize = 4;

/// Gives `plan` a front where its values take more memory than `options` ask for, where calls come first that are fixed in the
/// phase, and where it saves an eighth at least.
///
/// Tried are nodes that put out less than the one before and at most half of the largest value so far, as long as weights are
/// small beside what they work on ([`light`]), which is not asked where `options` allow no bytes at all. The earliest is taken
/// of those that come to within a third of the least memory. [`Purpose::Stages`] has no front: it reads all along the way.
pub(crate) fn split(
    graph: &Graph,
    marking: &Marking,
    plan: Plan,
    purpose: Purpose,
    options: Options,
) -> Plan {
    let Some(limit) = options.in_parts.filter(|&limit| plan.batch > 1 && plan.slots.total() > limit) else {
        return plan;
    };
    let compile = |until, batch| {
        let (purpose, options) = (Purpose::Infer { until }, options.in_parts(None));
        Plan::compile(graph, marking, batch, purpose, options, (&[], None))
    };
    let mut found: Vec<(usize, Plan)> = Vec::new();
    for (node, value) in candidates(graph, marking, &plan, purpose) {
        let one = compile(node, 1).slots.total();
        let fits = |parts: &usize| one * plan.batch.div_ceil(*parts) <= limit / 2;
        let parts = (2..PARTS).find(fits).unwrap_or(PARTS);
        let each = plan.batch.div_ceil(parts);
        if limit > 0 && !light(graph, node, each) {
            break;
        }
        let rest = plan.batch % each;
        let front = Front {
            node,
            value,
            plan: Box::new(compile(node, each)),
            last: (rest > 0).then(|| Box::new(compile(node, rest))),
        };
        let plan = behind(plan.clone(), front, options);
        found.push((plan.shared(), plan));
    }
    let least = found.iter().map(|(bytes, _)| *bytes).min().unwrap_or(usize::MAX);
    let near = |bytes: usize| bytes <= least + least / 3;
    let Some((bytes, mut chosen)) = found.into_iter().find(|(bytes, _)| near(*bytes)) else { return plan };
    let whole = plan.shared();
    if bytes > whole - whole / 8 {
        return plan;
    }
    if let Some(front) = &chosen.front {
        let (name, mb) = (&graph.node(front.node).name, |bytes: usize| bytes as f64 * 1e-6);
        let (calls, each) = (front.plan.calls().count(), front.plan.batch);
        let line = format!(
            "front: {calls} calls up to `{name}` run {each} pictures at a time, {:.1} MB in place of {:.1}",
            mb(bytes),
            mb(whole)
        );
        chosen.log.push(line);
    }
    chosen
}

/// Where a front may end: nodes with the values that calls of `plan` write, which fusion leaves nothing of for some.
fn candidates(graph: &Graph, marking: &Marking, plan: &Plan, purpose: Purpose) -> Vec<(NodeId, Value)> {
    let cut = cut::cut(graph, &need::is_fixed(graph, marking));
    let last = |id: &NodeId| match purpose {
        Purpose::Train(_) => *id <= cut,
        Purpose::Infer { until } => *id <= cut && *id < until,
        Purpose::Stages => false,
    };
    let forward = plan.calls().filter(|i| i.pass == Pass::Forward);
    let written: HashMap<_, _> =
        forward.flat_map(|i| i.call.writes()).map(|v| (plan.values.info(v).origin, v)).collect();
    let len = |id: NodeId| graph.node(id).shape.image_len();
    let (mut found, mut largest, mut from, mut last_len) = (Vec::new(), 0, 0, 0);
    let necks = cut::necks(graph, &vec![true; graph.nodes().len()]);
    for id in necks.into_iter().take_while(last) {
        largest = graph.node_ids().take(id.index() + 1).skip(from).map(len).fold(largest, usize::max);
        from = id.index() + 1;
        if let Some(&value) = written.get(&Origin::Output(id)) {
            if len(id) < last_len && 2 * len(id) <= largest {
                found.push((id, value));
            }
            last_len = len(id);
        }
    }
    found
}

/// Whether all that the nodes up to `last` work with is small beside what they put out of `batch` pictures: a part reads,
/// packs and transforms weights as the whole batch does.
fn light(graph: &Graph, last: NodeId, batch: usize) -> bool {
    /// Weights to values.
    const SHARE: usize = 8;
    graph.node_ids().take_while(|&id| id <= last).all(|id| {
        let node = graph.node(id);
        let weights: usize = node.op.params().iter().map(|&p| graph.param(p).len()).sum();
        SHARE * weights <= batch * node.shape.image_len()
    })
}

/// `plan` without the calls of `front`, which it holds from now on.
fn behind(mut plan: Plan, front: Front, options: Options) -> Plan {
    let stays = |i: &Instruction| i.pass != Pass::Forward || i.node > front.node;
    plan.prefix.retain(stays);
    plan.suffix.retain(stays);
    let calls: Vec<_> = plan.calls().cloned().collect();
    let mut updates = plan.updates.clone();
    updates.iter_mut().for_each(|update| update.after += plan.prefix.len());
    let keep = [plan.cut_value, plan.output, front.value];
    plan.slots = slots::assign(&plan.values, &plan.widths, &calls, &keep, &updates, options.sharing());
    plan.front = Some(front);
    plan
}
