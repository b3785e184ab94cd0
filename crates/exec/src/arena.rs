//! One buffer of which a plan's values are pieces.

use std::collections::BTreeMap;
use std::ops::Range;

use defrost_tensor::{KernelError, Kernels, Layout, Splitter};

/// A buffer in pieces: those that are not in use, by where they start. Between the runs of plans that is all of them.
pub(crate) struct Arena<B> {
    pieces: BTreeMap<usize, (usize, B)>,
    len: usize,
}

impl<B> Default for Arena<B> {
    fn default() -> Self {
        Self { pieces: BTreeMap::new(), len: 0 }
    }
}

impl<B> Arena<B> {
    /// Makes sure that there are `len` elements.
    pub(crate) fn reserve<K: Kernels<Buf = B>>(
        &mut self,
        kernels: &K,
        len: usize,
    ) -> Result<(), KernelError> {
        if self.len < len {
            *self = Self::default(); // Freed before the larger one is made.
            self.pieces.insert(0, (len, kernels.alloc(Layout::Plain(len))?));
            self.len = len;
        }
        Ok(())
    }

    /// Takes out the piece of `len` elements that starts at `start`: cut from larger ones, joined from smaller ones.
    pub(crate) fn take(&mut self, tools: Splitter<B>, (start, len): (usize, usize)) -> B {
        let free = "values that are in use at the same time do not meet";
        let (&at, _) = self.pieces.range(..=start).next_back().expect(free);
        let (mut have, mut buffer) = self.pieces.remove(&at).expect(free);
        while at + have < start + len {
            let (more, next) = self.pieces.remove(&(at + have)).expect(free);
            buffer = (tools.join)(buffer, next);
            have += more;
        }
        if at < start {
            let (before, rest) = (tools.split)(buffer, start - at);
            self.pieces.insert(at, (start - at, before));
            (buffer, have) = (rest, have - (start - at));
        }
        if have > len {
            let (wanted, behind) = (tools.split)(buffer, len);
            self.pieces.insert(start + len, (have - len, behind));
            buffer = wanted;
        }
        buffer
    }

    /// Puts it back.
    pub(crate) fn put(&mut self, (start, len): (usize, usize), buffer: B) {
        self.pieces.insert(start, (len, buffer));
    }
}

/// The slots of a plan that are pieces of an arena: in place only while a call needs them.
pub(crate) struct Pieces {
    /// Start and length of each slot.
    pub(crate) ranges: Vec<(usize, usize)>,
    /// Those that are in place.
    out: Vec<usize>,
}

impl Pieces {
    /// Of slots with these ranges.
    pub(crate) fn new(ranges: Vec<(usize, usize)>) -> Self {
        Self { ranges, out: Vec::new() }
    }

    /// Puts `slot` in place, if it is not.
    pub(crate) fn bring<B>(
        &mut self,
        arena: &mut Arena<B>,
        tools: Splitter<B>,
        slot: usize,
        slots: &mut [Option<B>],
    ) {
        if slots[slot].is_none() {
            slots[slot] = Some(arena.take(tools, self.ranges[slot]));
            self.out.push(slot);
        }
    }

    /// Gives all that is in place back.
    pub(crate) fn give_back<B>(&mut self, arena: &mut Arena<B>, slots: &mut [Option<B>]) {
        for slot in self.out.drain(..) {
            if let Some(buffer) = slots[slot].take() {
                arena.put(self.ranges[slot], buffer);
            }
        }
    }
}

/// What is left of a buffer on both sides of a piece that was cut out of it.
pub(crate) struct Gap<B>(B, B);

impl<B> Gap<B> {
    /// Cuts the elements of `range` out of `buffer`.
    pub(crate) fn cut(tools: Splitter<B>, buffer: B, range: Range<usize>) -> (B, Self) {
        let (before, rest) = (tools.split)(buffer, range.start);
        let (piece, behind) = (tools.split)(rest, range.len());
        (piece, Self(before, behind))
    }

    /// The whole again.
    pub(crate) fn close(self, tools: Splitter<B>, piece: B) -> B {
        (tools.join)((tools.join)(self.0, piece), self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a piece starts and how long it is stands for its contents.
    const TOOLS: Splitter<(usize, usize)> = Splitter {
        split: |(start, len), at| ((start, at), (start + at, len - at)),
        join: |a, b| {
            assert_eq!(a.0 + a.1, b.0);
            (a.0, a.1 + b.1)
        },
    };

    #[test]
    fn pieces_are_cut_and_joined_wherever_they_are_wanted() {
        let mut arena = Arena { pieces: BTreeMap::from([(0, (100, (0, 100)))]), len: 100 };
        for wanted in [(20, 30), (0, 100), (40, 10), (45, 50), (0, 45), (99, 1), (30, 60)] {
            let piece = arena.take(TOOLS, wanted);
            assert_eq!(piece, wanted);
            let left: usize = arena.pieces.values().map(|(len, _)| len).sum();
            assert_eq!(left, 100 - wanted.1);
            arena.put(wanted, piece);
        }
        let mut pieces = Pieces::new(vec![(10, 20), (30, 5)]);
        let mut slots = vec![None; 2];
        [0, 1, 0].iter().for_each(|&slot| pieces.bring(&mut arena, TOOLS, slot, &mut slots));
        assert_eq!(slots, [Some((10, 20)), Some((30, 5))]);
        pieces.give_back(&mut arena, &mut slots);
        assert_eq!((slots, arena.take(TOOLS, (0, 100))), (vec![None, None], (0, 100)));
    }

    #[test]
    fn a_piece_is_lent_from_anywhere_in_a_buffer() {
        for range in [0..10, 0..30, 10..20, 25..30] {
            let (piece, gap) = Gap::cut(TOOLS, (7, 30), range.clone());
            assert_eq!(piece, (7 + range.start, range.len()));
            assert_eq!(gap.close(TOOLS, piece), (7, 30));
        }
    }
}
