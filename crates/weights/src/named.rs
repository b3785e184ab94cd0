//! `NamedTensors`: what every weight file comes down to.

use std::collections::BTreeMap;

use defrost_tensor::HostTensor;
use indexmap::IndexMap;

/// Tensors by name, in the order they were inserted, and the text a file carries beside them.
///
/// Equality asks for the same tensors in the same order and the same metadata.
#[derive(Clone, Debug, Default)]
pub struct NamedTensors {
    tensors: IndexMap<String, HostTensor>,
    /// Free text by key, as in the `__metadata__` of a safetensors file.
    pub metadata: BTreeMap<String, String>,
}

impl NamedTensors {
    /// No tensors and no metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor at the end, or replaces the one of this name where it stands and returns the old one.
    pub fn insert(&mut self, name: impl Into<String>, tensor: HostTensor) -> Option<HostTensor> {
        self.tensors.insert(name.into(), tensor)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.get(name)
    }

    /// Takes the tensor of this name out; the others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<HostTensor> {
        self.tensors.shift_remove(name)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The number of elements of all tensors together.
    pub fn elements(&self) -> usize {
        self.tensors.values().map(HostTensor::len).sum()
    }

    /// The names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The names and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }
}

impl PartialEq for NamedTensors {
    fn eq(&self, other: &Self) -> bool {
        self.metadata == other.metadata && self.tensors.iter().eq(other.tensors.iter())
    }
}

impl FromIterator<(String, HostTensor)> for NamedTensors {
    fn from_iter<I: IntoIterator<Item = (String, HostTensor)>>(iter: I) -> Self {
        Self { tensors: iter.into_iter().collect(), metadata: BTreeMap::new() }
    }
}

impl IntoIterator for NamedTensors {
    type Item = (String, HostTensor);
    type IntoIter = indexmap::map::IntoIter<String, HostTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}
