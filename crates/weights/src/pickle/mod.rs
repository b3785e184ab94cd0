//! Python pickles, parsed and never run.
//!
//! A pickle is a program for a stack machine whose `REDUCE` calls whatever Python object it names. Here nothing is
//! called: a call becomes a [`Value::Object`] that says what would have been called with what, and the readers of each
//! format know the few calls that make tensors. A name that is not on the list ([`globals`]) is an error at the place
//! where it is named.
//!
//! The machine is written here because a weight file needs all of it in one: persistent ids and several pickles in a
//! row (PyTorch), the byte strings of Python 2 (Lasagne), errors that name the object that was asked for, and memory
//! that is bounded whatever the file says.

mod escapes;
mod globals;
mod machine;
pub(crate) mod numpy;
mod walk;

use std::borrow::Cow;
use std::ops::Range;

use crate::{Error, Format, Result};

/// The values one pickle may make. A checkpoint has some ten thousand.
const MAX_VALUES: usize = 1 << 21;

/// A value in a [`Pickle`].
pub(crate) type Ref = u32;

/// What a pickle holds. Values refer to one another by [`Ref`], and a hostile file can make them a cycle.
#[derive(Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    /// Bytes, or a string of Python 2, where they lie in the file.
    Bytes(Range<usize>),
    /// Bytes that were escaped in the file.
    OwnedBytes(Vec<u8>),
    Tuple(Vec<Ref>),
    /// A list or a set.
    List(Vec<Ref>),
    Dict(Vec<(Ref, Ref)>),
    /// A Python object by module and name, such as `torch.FloatStorage`.
    Global(String),
    /// A persistent id: PyTorch's storages.
    Persistent(Ref),
    /// The result of a call or an instantiation.
    Object(Box<Object>),
}

/// What would have been called, and what would have been done to the result.
#[derive(Debug)]
pub(crate) struct Object {
    callable: Ref,
    args: Ref,
    state: Option<Ref>,
    items: Vec<Ref>,
    pairs: Vec<(Ref, Ref)>,
}

/// One parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    root: Ref,
    /// The bytes of the pickle, up to and with its full stop.
    pub(crate) length: usize,
    format: Format,
}

impl<'a> Pickle<'a> {
    /// Parses the pickle that `bytes` begin with.
    pub(crate) fn parse(bytes: &'a [u8], format: Format) -> Result<Self> {
        machine::run(bytes, format)
    }

    /// The value that the pickle is.
    pub(crate) fn root(&self) -> Ref {
        self.root
    }

    pub(crate) fn get(&self, at: Ref) -> &Value {
        // Every reference was made by pushing to `values`.
        &self.values[at as usize]
    }

    /// The text of a string; a byte string of Python 2 is read as Latin-1.
    pub(crate) fn text(&self, at: Ref) -> Option<Cow<'_, str>> {
        match self.get(at) {
            Value::Str(s) => Some(Cow::Borrowed(s)),
            _ => self.bytes(at).map(|b| match std::str::from_utf8(b) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(b.iter().map(|&c| char::from(c)).collect()),
            }),
        }
    }

    /// The bytes of a byte string.
    pub(crate) fn bytes(&self, at: Ref) -> Option<&[u8]> {
        match self.get(at) {
            Value::Bytes(range) => self.bytes.get(range.clone()),
            Value::OwnedBytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A whole number that is an extent, a count or an offset.
    pub(crate) fn size(&self, at: Ref) -> Option<usize> {
        match self.get(at) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A tuple or list of such numbers.
    pub(crate) fn sizes(&self, at: Ref) -> Option<Vec<usize>> {
        self.sequence(at)?.iter().map(|&r| self.size(r)).collect()
    }

    /// The elements of a tuple, list or set, also of a subclass (`torch.Size`).
    pub(crate) fn sequence(&self, at: Ref) -> Option<&[Ref]> {
        match self.get(at) {
            Value::Tuple(v) | Value::List(v) => Some(v),
            // `torch.Size((2, 3))` is called with the tuple it holds.
            Value::Object(object) => match self.get(object.args) {
                Value::Tuple(args) if object.items.is_empty() && args.len() == 1 => match self.get(args[0]) {
                    Value::Tuple(v) | Value::List(v) => Some(v),
                    _ => None,
                },
                _ => Some(&object.items),
            },
            _ => None,
        }
    }

    /// The entries of a dict, also of a subclass (`OrderedDict`).
    pub(crate) fn dict(&self, at: Ref) -> Option<&[(Ref, Ref)]> {
        match self.get(at) {
            Value::Dict(pairs) => Some(pairs),
            Value::Object(object) if globals::is_dict(self.global(object.callable)?) => Some(&object.pairs),
            _ => None,
        }
    }

    /// The value of a text key in a dict.
    pub(crate) fn entry(&self, dict: Ref, key: &str) -> Option<Ref> {
        self.dict(dict)?.iter().rev().find(|(k, _)| self.text(*k).is_some_and(|t| t == key)).map(|&(_, v)| v)
    }

    /// The name of a Python object.
    pub(crate) fn global(&self, at: Ref) -> Option<&str> {
        match self.get(at) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// What a call would have called, and its arguments.
    pub(crate) fn call(&self, at: Ref) -> Option<(&str, &[Ref])> {
        match self.get(at) {
            Value::Object(object) => match self.get(object.args) {
                Value::Tuple(args) => Some((self.global(object.callable)?, args)),
                _ => None,
            },
            _ => None,
        }
    }

    /// What `__setstate__` or the attributes of an object would have been given.
    pub(crate) fn state(&self, at: Ref) -> Option<Ref> {
        match self.get(at) {
            Value::Object(object) => object.state,
            _ => None,
        }
    }

    /// A plain value as text, for metadata.
    pub(crate) fn scalar(&self, at: Ref) -> Option<String> {
        match self.get(at) {
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(n) => Some(n.to_string()),
            Value::Float(f) => Some(f.to_string()),
            _ => self.text(at).map(Cow::into_owned),
        }
    }

    /// The ids of everything that is stored elsewhere.
    pub(crate) fn persistent_ids(&self) -> impl Iterator<Item = Ref> {
        self.values.iter().filter_map(|v| match v {
            Value::Persistent(id) => Some(*id),
            _ => None,
        })
    }

    /// An error of the format the pickle is part of, for what is sound but not read.
    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::unsupported(self.format, what)
    }

    /// An error of the format the pickle is part of.
    pub(crate) fn bad(&self, what: impl Into<String>) -> Error {
        Error::malformed(self.format, what)
    }
}

#[cfg(test)]
mod tests;
