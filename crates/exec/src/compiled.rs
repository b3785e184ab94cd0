//! A plan with its operands resolved to places, ready to run again and again.

use std::collections::HashMap;

use defrost_graph::{Instruction, Origin, Value};
use defrost_plan::Plan;
use defrost_tensor::{Call, KernelError, Kernels, Layout};

use crate::arena::Pieces;

/// Where an operand's buffer is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// A parameter, by its id.
    Param(usize),
    /// A parameter's gradient, by its id.
    Grad(usize),
    /// A slot: shared by all plans of the session, or a piece of its arena.
    Slot(usize),
    /// A buffer of this plan.
    Own(usize),
    /// A folded weight or bias, shared by all plans of the phase.
    Folded(usize),
}

impl Place {
    /// The slot, where it is one.
    pub(crate) fn slot(self) -> Option<usize> {
        if let Self::Slot(slot) = self { Some(slot) } else { None }
    }
}

/// Folded weights: the plans of a phase fold a convolution alike, if they fold it, and share the result.
pub(crate) struct Folds<B> {
    places: HashMap<Origin, usize>,
    pub(crate) buffers: Vec<Option<B>>,
    /// Of which weights each was made, by the session's count of changes.
    made_of: Vec<Option<u64>>,
}

impl<B> Default for Folds<B> {
    fn default() -> Self {
        Self { places: HashMap::new(), buffers: Vec::new(), made_of: Vec::new() }
    }
}

impl<B> Folds<B> {
    /// The place of `origin`, made where there is none yet.
    fn place<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        origin: Origin,
        layout: Layout,
    ) -> Result<usize, KernelError> {
        if let Some(&place) = self.places.get(&origin) {
            return Ok(place);
        }
        self.buffers.push(Some(kernels.alloc(layout)?));
        self.made_of.push(None);
        self.places.insert(origin, self.buffers.len() - 1);
        Ok(self.buffers.len() - 1)
    }

    /// Whether all of `plan`'s were made of weights that are not older than `version`.
    pub(crate) fn are_of(&self, plan: &Compiled<B>, version: u64) -> bool {
        plan.folds.iter().all(|&i| self.made_of[i].is_some_and(|made| made >= version))
    }

    /// Those of `plan` were made now.
    pub(crate) fn made(&mut self, plan: &Compiled<B>, version: u64) {
        plan.folds.iter().for_each(|&i| self.made_of[i] = Some(version));
    }
}

/// A plan over places.
pub(crate) struct Compiled<B> {
    pub(crate) plan: Plan,
    pub(crate) setup: Vec<Call<Place, Place>>,
    pub(crate) prefix: Vec<Call<Place, Place>>,
    pub(crate) suffix: Vec<Call<Place, Place>>,
    /// Buffers of this plan: the batch, the cut, the output, what its front puts out.
    pub(crate) own: Vec<Option<B>>,
    /// Its slots where they are pieces of the session's arena.
    pub(crate) pieces: Option<Pieces>,
    /// Its places among the [`Folds`].
    folds: Vec<usize>,
    places: HashMap<Value, Place>,
    by_origin: HashMap<Origin, Place>,
}

impl<B> Compiled<B> {
    /// Resolves `plan`, allocating what it keeps to itself but for the values of `lent`, which get a buffer for each run.
    pub(crate) fn new<K: Kernels<Buf = B>>(
        kernels: &K,
        plan: Plan,
        shared: &mut Folds<B>,
        lent: &[Value],
    ) -> Result<Self, KernelError> {
        // Large slots first, so that the plans of one session share large buffers with large ones.
        let mut rank: Vec<_> = (0..plan.slots.bytes.len()).collect();
        let packed = !plan.slots.starts.is_empty();
        if !packed {
            rank.sort_by_key(|&s| std::cmp::Reverse(plan.slots.bytes[s]));
        }
        let mut place_of_slot = vec![0; rank.len()];
        rank.iter().enumerate().for_each(|(place, &slot)| place_of_slot[slot] = place);

        let mut kept = vec![plan.cut_value, plan.output];
        kept.extend(plan.taps.iter().map(|(_, tap)| tap));
        kept.extend(plan.front.as_ref().map(|front| front.value));
        let (mut own, mut folds) = (Vec::new(), Vec::new());
        let (mut places, mut by_origin) = (HashMap::new(), HashMap::new());
        for (value, info) in plan.values.iter() {
            let place = match (info.origin, plan.slots.of[value.index()]) {
                (Origin::Param(id), _) => Place::Param(id.index()),
                (_, Some(slot)) => Place::Slot(place_of_slot[slot]),
                (Origin::ParamGrad(id), None) => Place::Grad(id.index()),
                (origin @ Origin::Folded(..), None) => {
                    let at = shared.place(kernels, origin, info.layout)?;
                    folds.push(at);
                    Place::Folded(at)
                }
                (origin, None) => {
                    if origin.is_transient() && !kept.contains(&value) {
                        continue; // Fused away, or the front's own.
                    }
                    own.push(match info.layout {
                        _ if lent.contains(&value) => None,
                        Layout::Activation(shape) if plan.widths[value.index()] < 4 => {
                            Some(kernels.alloc_activation(shape)?)
                        }
                        layout => Some(kernels.alloc(layout)?),
                    });
                    Place::Own(own.len() - 1)
                }
            };
            places.insert(value, place);
            if !info.origin.is_transient() && !matches!(place, Place::Slot(_)) {
                by_origin.insert(info.origin, place);
            }
        }
        let resolve = |part: &[Instruction]| {
            let place = |v: Value| places[&v];
            part.iter().map(|i| i.call.map(&mut { place }, &mut { place })).collect::<Vec<_>>()
        };
        let (setup, prefix, suffix) = (resolve(&plan.setup), resolve(&plan.prefix), resolve(&plan.suffix));
        let elements = |bytes: &usize| bytes / 4;
        let ranges = plan.slots.starts.iter().map(elements).zip(plan.slots.bytes.iter().map(elements));
        let pieces = packed.then(|| Pieces::new(ranges.collect()));
        Ok(Self { setup, prefix, suffix, own, pieces, folds, by_origin, places, plan })
    }

    /// 32-bit elements that each of the shared slots must have.
    pub(crate) fn slot_lens(&self) -> Vec<usize> {
        if self.pieces.is_some() {
            return Vec::new();
        }
        let mut lens: Vec<_> = self.plan.slots.bytes.iter().map(|bytes| bytes.div_ceil(4)).collect();
        lens.sort_unstable_by(|a, b| b.cmp(a));
        lens
    }

    /// Where the value of `origin` is, with its layout, if the plan has one.
    pub(crate) fn find(&self, origin: Origin) -> Option<Place> {
        self.by_origin.get(&origin).copied()
    }

    /// Where `value` is, and what it holds.
    pub(crate) fn place(&self, value: Value) -> (Place, Layout) {
        (self.places[&value], self.plan.values.info(value).layout)
    }
}
