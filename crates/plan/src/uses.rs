//! Who reads and who writes a value.

use std::collections::HashMap;

use defrost_graph::{Instruction, Value};

/// For each value of a program, the calls that write and read it, by their places in the program.
#[derive(Debug, Default)]
pub struct Uses {
    writers: HashMap<Value, Vec<usize>>,
    readers: HashMap<Value, Vec<usize>>,
}

impl Uses {
    /// Counts the uses in `instructions`.
    pub fn of(instructions: &[Instruction]) -> Self {
        let mut uses = Self::default();
        for (at, instruction) in instructions.iter().enumerate() {
            for value in instruction.call.reads() {
                uses.readers.entry(value).or_default().push(at);
            }
            for value in instruction.call.writes() {
                uses.writers.entry(value).or_default().push(at);
            }
        }
        uses
    }

    /// How often `value` is read.
    pub fn reads(&self, value: Value) -> usize {
        self.readers(value).len()
    }

    /// The calls that read `value`, in order.
    pub fn readers(&self, value: Value) -> &[usize] {
        self.readers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// The calls that write `value`, in order.
    pub fn writers(&self, value: Value) -> &[usize] {
        self.writers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// The call that writes `value` if there is exactly one.
    pub fn only_writer(&self, value: Value) -> Option<usize> {
        match self.writers(value) {
            &[at] => Some(at),
            _ => None,
        }
    }
}
