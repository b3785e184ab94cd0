//! Slots: values whose lifetimes do not meet share a buffer.

use defrost_graph::{Instruction, Origin, Value, Values};
use defrost_tensor::Layout;

use crate::Update;

/// Where each value lives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slots {
    /// For each value, its slot; `None` where the value keeps a buffer of its own (parameters, the batch, the cut, what
    /// is read after the step) or is not used at all.
    pub of: Vec<Option<usize>>,
    /// Bytes of each slot.
    pub bytes: Vec<usize>,
    /// Where slots are packed: the byte at which each starts in one buffer. Slots whose values are in use at the same time do
    /// not meet. Empty where each slot is a buffer of its own.
    pub starts: Vec<usize>,
}

/// How values share memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sharing {
    /// Not at all: each value has a slot of its own.
    Off,
    /// Values whose lives do not meet share whole buffers.
    #[default]
    Slots,
    /// All values are pieces of one buffer, which can be cut and joined anywhere.
    Packed,
}

impl Slots {
    /// Bytes of all slots together.
    pub fn total(&self) -> usize {
        match self.starts.is_empty() {
            true => self.bytes.iter().sum(),
            false => {
                self.starts.iter().zip(&self.bytes).map(|(start, bytes)| start + bytes).max().unwrap_or(0)
            }
        }
    }
}

/// Bytes in which an element of each value is stored: those that [`Call::writes_activations`](defrost_tensor::Call) speaks of,
/// and the pictures, in `activation` of them, all else in 4.
pub fn widths(values: &Values, instructions: &[Instruction], activation: usize) -> Vec<usize> {
    let mut narrow = vec![None; values.len()];
    for (value, info) in values.iter().filter(|(_, info)| info.origin == Origin::Input) {
        narrow[value.index()] = Some(matches!(info.layout, Layout::Activation(_)));
    }
    for instruction in instructions {
        let writes = instruction.call.writes_activations(|v| narrow[v.index()] == Some(true));
        for value in instruction.call.writes() {
            let activation = writes && matches!(values.info(value).layout, Layout::Activation(_));
            // What has several writers is as wide as the widest of them.
            let all = narrow[value.index()].get_or_insert(true);
            *all &= activation;
        }
    }
    narrow.into_iter().map(|narrow| if narrow == Some(true) { activation } else { 4 }).collect()
}

/// When a value is in use: the first and the last call that touch it.
type Life = (usize, usize);

/// Assigns slots by lifetime, first call that touches a value to last. A value that a call writes never shares a slot with
/// one that the same call reads. `widths` are the bytes of an element of each value. A gradient of `updates` is a value too,
/// until its parameter is stepped.
///
/// Of several ways the one that takes least memory: large values first (greedy by size; Pisarchyk and Lee 2020, "Efficient
/// Memory Management for Deep Neural Net Inference", who have it for whole buffers and for pieces of one), in the order of
/// first use, and for pieces those that live long first.
pub fn assign(
    values: &Values,
    widths: &[usize],
    instructions: &[Instruction],
    keep: &[Value],
    updates: &[Update],
    sharing: Sharing,
) -> Slots {
    let mut lives: Vec<Option<Life>> = vec![None; values.len()];
    for (at, instruction) in instructions.iter().enumerate() {
        for value in instruction.call.reads().into_iter().chain(instruction.call.writes()) {
            let (_, last) = lives[value.index()].get_or_insert((at, at));
            *last = at;
        }
    }
    for update in updates {
        if let Some((_, last)) = &mut lives[update.grad.index()] {
            *last = (*last).max(update.after);
        }
    }
    let used_up = |v: &Value| updates.iter().any(|u| u.grad == *v && !u.fused);
    let transient =
        values.iter().filter(|(v, info)| (info.origin.is_transient() && !keep.contains(v)) || used_up(v));
    let mut lived: Vec<(Value, usize, Life)> = transient
        .filter_map(|(v, info)| Some((v, widths[v.index()] * info.layout.len(), lives[v.index()]?)))
        .collect();
    lived.sort_by_key(|(_, _, (first, _))| *first);
    if sharing == Sharing::Off {
        return each_its_own(values.len(), lived.iter().map(|(value, len, _)| (*value, *len)));
    }
    if sharing == Sharing::Packed {
        let by_use = packed(values.len(), &lived);
        lived.sort_by_key(|(_, len, (first, last))| std::cmp::Reverse((last - first, *len)));
        let by_life = packed(values.len(), &lived);
        lived.sort_by_key(|(_, len, (first, last))| std::cmp::Reverse((*len, last - first)));
        let by_size = packed(values.len(), &lived);
        let ways = [by_size, by_life, by_use];
        return ways.into_iter().min_by_key(Slots::total).unwrap_or_default();
    }
    let by_use = by_use(values.len(), &lived);
    lived.sort_by_key(|(_, bytes, _)| std::cmp::Reverse(*bytes));
    let by_size = by_size(values.len(), &lived);
    if by_size.total() < by_use.total() { by_size } else { by_use }
}

fn each_its_own(values: usize, lived: impl Iterator<Item = (Value, usize)>) -> Slots {
    let mut slots = Slots { of: vec![None; values], ..Slots::default() };
    for (value, len) in lived {
        slots.of[value.index()] = Some(slots.bytes.len());
        slots.bytes.push(len);
    }
    slots
}

/// In the order given, each in the smallest gap that those placed before leave while it lives, or behind them.
fn packed(values: usize, lived: &[(Value, usize, Life)]) -> Slots {
    /// Pieces start on a cache line.
    const LINE: usize = 64;
    let mut slots =
        each_its_own(values, lived.iter().map(|(value, len, _)| (*value, len.next_multiple_of(LINE))));
    let mut placed: Vec<(usize, usize, Life)> = Vec::new(); // By where they start.
    for &(_, len, life) in lived {
        let len = len.next_multiple_of(LINE);
        let (mut end, mut best) = (0, None);
        for &(start, stop, (from, until)) in &placed {
            if until < life.0 || life.1 < from {
                continue;
            }
            let gap = start.saturating_sub(end);
            if gap >= len && best.is_none_or(|(least, _)| gap < least) {
                best = Some((gap, end));
            }
            end = end.max(stop);
        }
        let start = best.map_or(end, |(_, start)| start);
        slots.starts.push(start);
        let at = placed.partition_point(|(other, ..)| *other < start);
        placed.insert(at, (start, start + len, life));
    }
    slots
}

/// Best fit in the order of first use; where nothing that is free is large enough, the largest of it grows.
fn by_use(values: usize, lived: &[(Value, usize, Life)]) -> Slots {
    let mut slots = Slots { of: vec![None; values], ..Slots::default() };
    let mut busy: Vec<Option<usize>> = Vec::new(); // For each slot, the last call that touches its value.
    for &(value, bytes, (first, last)) in lived {
        for until in &mut busy {
            if until.is_some_and(|u| u < first) {
                *until = None;
            }
        }
        let free = (0..busy.len()).filter(|&s| busy[s].is_none());
        // The smallest that is large enough, else the largest, which grows.
        let best = free.min_by_key(|&s| {
            let have = slots.bytes[s];
            if have >= bytes { (0, have) } else { (1, usize::MAX - have) }
        });
        let slot = best.unwrap_or_else(|| {
            slots.bytes.push(0);
            busy.push(None);
            busy.len() - 1
        });
        slots.bytes[slot] = slots.bytes[slot].max(bytes);
        busy[slot] = Some(last);
        slots.of[value.index()] = Some(slot);
    }
    slots
}

/// Large values first, each in the smallest slot that is free while it lives.
fn by_size(values: usize, lived: &[(Value, usize, Life)]) -> Slots {
    let mut slots = Slots { of: vec![None; values], ..Slots::default() };
    let mut lives: Vec<Vec<Life>> = Vec::new();
    for &(value, bytes, (first, last)) in lived {
        let free = |taken: &Vec<Life>| taken.iter().all(|&(from, until)| until < first || last < from);
        // A new slot is never larger than those before it: the last that is free is the smallest.
        let slot = lives.iter().rposition(free).unwrap_or_else(|| {
            slots.bytes.push(bytes);
            lives.push(Vec::new());
            lives.len() - 1
        });
        lives[slot].push((first, last));
        slots.of[value.index()] = Some(slot);
    }
    slots
}
