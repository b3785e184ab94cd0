//! Python pickles of NumPy arrays, as the Lasagne recipes publish them.
//!
//! A recipe is a dict whose `param values` or `values` is the list of all parameters in the order of the layers, beside
//! it the mean and the class names. The list becomes `arr_0`, `arr_1`, …, the names that `numpy.savez` gives it, so that
//! a pickle and an `.npz` of the same network read the same. What the arrays are (BGR filters, dense weights as
//! `[in, out]`, inverse standard deviations in place of variances) is said by the recipe and not by the file.

use std::path::Path;

use crate::pickle::{Pickle, Ref, numpy};
use crate::{Error, Format, NamedTensors, Result, budget, mmap};

const FORMAT: Format = Format::Pickle;
/// The keys under which recipes keep the list of parameters.
const LISTS: [&str; 4] = ["param values", "values", "params", "param_values"];

/// Reads the arrays of a pickle of Python 2 or 3.
///
/// The list under `param values`, `values`, `params` or `param_values`, or the pickle itself where it is a list, becomes
/// `arr_0`, `arr_1`, …; an array elsewhere has its keys, joined by dots (`mean value`, `mean image`). Text and numbers
/// become metadata, a list of texts (`synset words`) one line each.
///
/// # Errors
/// [`Error::File`] naming the file: it is no pickle, holds no array, or asks for a Python object that is no array
/// ([`Error::Global`]). Nothing in the file is run.
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| read_bytes(&bytes)).map_err(|e| e.at(path))
}

/// Reads a pickle that is in memory.
///
/// # Errors
/// As [`read`], without a file name.
pub fn read_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    let pickle = Pickle::parse(bytes, FORMAT)?;
    let is_array = |at: Ref| numpy::is_array(&pickle, at);
    let mut left = budget(bytes.len() as u64);
    let mut out = NamedTensors::new();
    for (path, at) in pickle.leaves(pickle.root(), &is_array)? {
        let Some(tensor) = numpy::array(&pickle, at)? else {
            return Err(Error::unsupported(
                FORMAT,
                format!("the array `{path}`, which is not one of plain numbers,"),
            ));
        };
        left = left.checked_sub(4 * tensor.len() as u64).ok_or_else(|| Error::TooLarge {
            format: FORMAT,
            what: format!("what is unpacked up to `{path}`"),
            limit: "64 times the file's size".into(),
        })?;
        out.insert(name(&path), tensor);
    }
    if out.is_empty() {
        return Err(Error::malformed(FORMAT, "it holds no NumPy array"));
    }
    for &(key, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        let texts = || {
            let lines: Option<Vec<_>> = pickle.sequence(value)?.iter().map(|&r| pickle.text(r)).collect();
            lines.filter(|l| !l.is_empty()).map(|l| l.join("\n"))
        };
        if let (Some(key), Some(value)) = (pickle.text(key), pickle.scalar(value).or_else(texts)) {
            out.metadata.insert(key.into_owned(), value);
        }
    }
    Ok(out)
}

fn name(path: &str) -> String {
    let list = LISTS.iter().find_map(|l| path.strip_prefix(l)?.strip_prefix('.'));
    let index = list.unwrap_or(path);
    if index.bytes().all(|b| b.is_ascii_digit()) { format!("arr_{index}") } else { index.to_owned() }
}
