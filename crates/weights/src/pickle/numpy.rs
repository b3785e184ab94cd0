//! NumPy arrays inside pickles.

use std::borrow::Cow;

use defrost_tensor::HostTensor;

use super::{Pickle, Ref};
use crate::elements::{self, Element};
use crate::{Result, npy};

/// Whether the value is an array.
pub(crate) fn is_array(pickle: &Pickle<'_>, at: Ref) -> bool {
    pickle.call(at).is_some_and(|(name, _)| {
        name.starts_with("numpy.") && (name.ends_with("._reconstruct") || name.ends_with("._frombuffer"))
    })
}

/// The array at `at` as a tensor, or none where it is no array of plain numbers.
pub(crate) fn array(pickle: &Pickle<'_>, at: Ref) -> Result<Option<HostTensor>> {
    let Some((name, args)) = pickle.call(at) else { return Ok(None) };
    let (shape, dtype, fortran, data) = if name.ends_with("._frombuffer") {
        // numpy._core.numeric._frombuffer(buffer, dtype, shape, order)
        let &[data, dtype, shape, order] = args else { return Ok(None) };
        (shape, dtype, pickle.text(order).is_some_and(|o| o == "F"), data)
    } else {
        // __setstate__((version, shape, dtype, is_fortran, data)), in old files without the version
        let state = pickle.state(at).and_then(|s| pickle.sequence(s)).unwrap_or_default();
        let Some(&[shape, dtype, fortran, data]) = state.last_chunk::<4>() else { return Ok(None) };
        (shape, dtype, pickle.scalar(fortran).is_some_and(|f| f == "true" || f == "1"), data)
    };
    let Some((element, big_endian)) = element(pickle, dtype) else { return Ok(None) };
    let Some(bytes) = buffer(pickle, data) else { return Ok(None) };
    let bad = |what: String| pickle.bad(format!("a pickled array: {what}"));
    let shape = pickle.sizes(shape).ok_or_else(|| bad("its shape is no tuple of whole numbers".into()))?;
    let needed = elements::count(&shape).and_then(|n| n.checked_mul(element.size()));
    if needed != Some(bytes.len()) {
        return Err(bad(format!("{} bytes do not make the shape {shape:?}", bytes.len())));
    }
    Ok(elements::tensor(&shape, element.decode(&bytes, big_endian), fortran))
}

/// `numpy.dtype('f4', False, True)` with the state `(3, '<', …)`; whether it is big-endian.
fn element(pickle: &Pickle<'_>, at: Ref) -> Option<(Element, bool)> {
    let (name, args) = pickle.call(at)?;
    let kind = pickle.text(*args.first()?)?;
    let order = pickle.state(at).and_then(|s| pickle.sequence(s)).and_then(|s| pickle.text(*s.get(1)?));
    let (element, stated) = npy::element(&kind)?;
    (name == "numpy.dtype").then_some((element, stated || order.is_some_and(|o| o == ">")))
}

/// Bytes as they are, as a `bytearray`, or as Python 3 writes them in protocol 2: `_codecs.encode(text, 'latin1')`.
fn buffer<'p>(pickle: &'p Pickle<'_>, at: Ref) -> Option<Cow<'p, [u8]>> {
    if let Some(bytes) = pickle.bytes(at) {
        return Some(Cow::Borrowed(bytes));
    }
    let (name, args) = pickle.call(at)?;
    match name {
        "_codecs.encode" => {
            let text = pickle.text(*args.first()?)?;
            let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            bytes.map(Cow::Owned)
        }
        "builtins.bytearray" => pickle.bytes(*args.first()?).map(Cow::Borrowed),
        _ => None,
    }
}
