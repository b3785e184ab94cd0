//! Slots: values whose lifetimes do not meet share a buffer.

use defrost_graph::{Instruction, Value, Values};

/// Where each value lives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slots {
    /// For each value, its slot; `None` where the value keeps a buffer of its own (parameters, the batch, the cut, what
    /// is read after the step) or is not used at all.
    pub of: Vec<Option<usize>>,
    /// Elements of each slot.
    pub lens: Vec<usize>,
}

impl Slots {
    /// Elements of all slots together.
    pub fn total(&self) -> usize {
        self.lens.iter().sum()
    }
}

/// Assigns slots by lifetime, first call that touches a value to last, best fit first. A value that a call writes never
/// shares a slot with one that the same call reads. With `share` off, each value gets a slot of its own.
pub fn assign(values: &Values, instructions: &[Instruction], keep: &[Value], share: bool) -> Slots {
    let mut first = vec![usize::MAX; values.len()];
    let mut last = vec![0; values.len()];
    for (at, instruction) in instructions.iter().enumerate() {
        for value in instruction.call.reads().into_iter().chain(instruction.call.writes()) {
            let i = value.index();
            (first[i], last[i]) = (first[i].min(at), at);
        }
    }
    let mut slots = Slots { of: vec![None; values.len()], lens: Vec::new() };
    let mut order: Vec<_> = values
        .iter()
        .filter(|(v, info)| info.origin.is_transient() && first[v.index()] != usize::MAX && !keep.contains(v))
        .collect();
    order.sort_by_key(|(v, _)| first[v.index()]);
    let mut busy: Vec<Option<usize>> = Vec::new(); // For each slot, the last call that touches its value.
    for (value, info) in order {
        let (i, len) = (value.index(), info.layout.len());
        for until in &mut busy {
            if until.is_some_and(|u| u < first[i]) {
                *until = None;
            }
        }
        let free = (0..busy.len()).filter(|&s| share && busy[s].is_none());
        // The smallest that is large enough, else the largest, which grows.
        let best = free.min_by_key(|&s| {
            let have = slots.lens[s];
            if have >= len { (0, have) } else { (1, usize::MAX - have) }
        });
        let slot = best.unwrap_or_else(|| {
            slots.lens.push(0);
            busy.push(None);
            busy.len() - 1
        });
        slots.lens[slot] = slots.lens[slot].max(len);
        busy[slot] = Some(last[i]);
        slots.of[i] = Some(slot);
    }
    slots
}
