//! safetensors: one file, or an index and its shards.
//!
//! A file is read through a memory map and checked by the `safetensors` crate: header length, offsets, shapes and sizes
//! must agree with the bytes that are there. Writing is done here, because the crate sorts tensors by type and name and
//! writes metadata in the order of a hash map: a checkpoint must keep the order of the network and be the same bytes
//! each time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use defrost_tensor::HostTensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::elements::{self, Element};
use crate::mmap;
use crate::{Error, Format, NamedTensors, Result, atomic};

const FORMAT: Format = Format::Safetensors;

/// How numbers are stored.
///
/// The half precisions apply to matrices and convolutions. Tensors of one dimension or none (biases, batch norm) stay
/// f32: they are small, and a running variance can lie below what f16 holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Precision {
    /// 32-bit floats: nothing is lost.
    #[default]
    F32,
    /// IEEE half precision. A tensor with a value over 65,504 stays f32.
    F16,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
}

/// Reads a safetensors file, in the order of its header, or all shards of a `*.safetensors.index.json`.
///
/// Floats and integers of any width become f32.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be opened, its header and its bytes do not agree, or it holds a type that
/// is no plain number (fp8 and smaller, complex).
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    let read = || {
        let bytes = mmap::map(path)?;
        if path.extension().is_some_and(|e| e == "json") { index(path, &bytes) } else { read_bytes(&bytes) }
    };
    read().map_err(|e| e.at(path))
}

/// Reads all shards of an index, whatever its name, in the index's order and with the first shard's metadata.
///
/// # Errors
/// As [`read`]; further, a shard that does not lie beside the index, and a tensor that is not in its shard.
pub fn read_index(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| index(path, &bytes)).map_err(|e| e.at(path))
}

/// Reads a safetensors file that is in memory, such as one embedded in a program.
///
/// # Errors
/// As [`read`], without a file name.
pub fn read_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| Error::malformed(FORMAT, e.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::malformed(FORMAT, e.to_string()))?;
    // The crate orders by offset; the order of the header is what the writer meant.
    let order: IndexMap<String, IgnoredAny> = serde_json::from_slice(&bytes[8..8 + header])
        .map_err(|e| Error::malformed(FORMAT, format!("the header: {e}")))?;
    let mut out = NamedTensors::new();
    for name in order.into_keys().filter(|n| n != "__metadata__") {
        let view = file.tensor(&name).map_err(|e| Error::malformed(FORMAT, e.to_string()))?;
        let element = element(view.dtype()).ok_or_else(|| {
            Error::unsupported(FORMAT, format!("tensor `{name}` of type {:?}", view.dtype()))
        })?;
        let tensor = elements::count(view.shape())
            .and_then(|_| elements::tensor(view.shape(), element.decode(view.data(), false), false))
            .ok_or_else(|| {
                Error::malformed(FORMAT, format!("tensor `{name}` has shape {:?}", view.shape()))
            })?;
        out.insert(name, tensor);
    }
    out.metadata.extend(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    Ok(out)
}

/// Writes `tensors` to `path`, whole or not at all ([`atomic`]). The same tensors give the same bytes.
///
/// A tensor whose name ends in `num_batches_tracked` is written as a 64-bit integer, as PyTorch has it.
///
/// # Errors
/// As [`atomic::write`].
pub fn write(path: impl AsRef<Path>, tensors: &NamedTensors, precision: Precision) -> Result<()> {
    let plan = plan(tensors, precision);
    atomic::write(path, |w| write_to(w, tensors, &plan))
}

/// `tensors` as the bytes of a safetensors file, as [`write()`] writes them.
pub fn to_bytes(tensors: &NamedTensors, precision: Precision) -> Vec<u8> {
    let mut out = Vec::new();
    write_to(&mut out, tensors, &plan(tensors, precision)).expect("a vector takes every byte");
    out
}

fn element(dtype: Dtype) -> Option<Element> {
    Some(match dtype {
        Dtype::BOOL => Element::Bool,
        Dtype::U8 => Element::U8,
        Dtype::I8 => Element::I8,
        Dtype::U16 => Element::U16,
        Dtype::I16 => Element::I16,
        Dtype::U32 => Element::U32,
        Dtype::I32 => Element::I32,
        Dtype::U64 => Element::U64,
        Dtype::I64 => Element::I64,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        _ => return None,
    })
}

/// The stored type of each tensor, in order.
pub(crate) fn plan(tensors: &NamedTensors, precision: Precision) -> Vec<Dtype> {
    let overflows =
        |t: &HostTensor| t.data().iter().any(|&v| v.is_finite() && f16::from_f32(v).is_infinite());
    let choose = |(name, tensor): (&str, &HostTensor)| match precision {
        _ if name.ends_with("num_batches_tracked") => Dtype::I64,
        Precision::F16 if tensor.shape().len() > 1 && !overflows(tensor) => Dtype::F16,
        Precision::Bf16 if tensor.shape().len() > 1 => Dtype::BF16,
        _ => Dtype::F32,
    };
    tensors.iter().map(choose).collect()
}

/// The header lists the tensors in their order; the data lies by falling element size, so that all of it is aligned.
fn write_to(w: &mut dyn Write, tensors: &NamedTensors, plan: &[Dtype]) -> io::Result<()> {
    let entries: Vec<_> = tensors.iter().zip(plan).map(|((n, t), &d)| (n, t, d)).collect();
    let mut by_size: Vec<usize> = (0..entries.len()).collect();
    by_size.sort_by_key(|&i| std::cmp::Reverse(entries[i].2.bitsize()));
    let mut offsets = vec![(0, 0); entries.len()];
    let mut end = 0;
    for &i in &by_size {
        let (_, tensor, dtype) = entries[i];
        let start = end;
        end += tensor.len() * dtype.bitsize() / 8;
        offsets[i] = (start, end);
    }

    let mut header: IndexMap<&str, Value> = IndexMap::new();
    if !tensors.metadata.is_empty() {
        header.insert("__metadata__", json!(tensors.metadata));
    }
    for ((name, tensor, dtype), (start, end)) in entries.iter().zip(&offsets) {
        let entry =
            json!({"dtype": format!("{dtype:?}"), "shape": tensor.shape(), "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    let mut header = serde_json::to_vec(&header).map_err(io::Error::other)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    w.write_all(&(header.len() as u64).to_le_bytes())?;
    w.write_all(&header)?;
    by_size.iter().try_for_each(|&i| write_data(w, entries[i].1.data(), entries[i].2))
}

pub(crate) fn write_data(w: &mut dyn Write, data: &[f32], dtype: Dtype) -> io::Result<()> {
    if dtype == Dtype::F32 && cfg!(target_endian = "little") {
        return w.write_all(bytemuck::cast_slice(data));
    }
    for part in data.chunks(1 << 16) {
        let bytes: Vec<u8> = match dtype {
            Dtype::I64 => part.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
            Dtype::F16 => {
                let mut half = vec![f16::ZERO; part.len()];
                half.convert_from_f32_slice(part);
                half.iter().flat_map(|h| h.to_le_bytes()).collect()
            }
            Dtype::BF16 => part.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => part.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        w.write_all(&bytes)?;
    }
    Ok(())
}

fn index(path: &Path, bytes: &[u8]) -> Result<NamedTensors> {
    const FORMAT: Format = Format::SafetensorsIndex;
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: IndexMap<String, String>,
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|e| Error::malformed(FORMAT, e.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut shards: IndexMap<&str, NamedTensors> = IndexMap::new();
    for (name, file) in &index.weight_map {
        if shards.contains_key(file.as_str()) {
            continue;
        }
        let plain =
            Path::new(file).file_name().is_some_and(|f| f == file.as_str()) && !file.contains(['/', '\\']);
        if !plain {
            let what =
                format!("tensor `{name}` is said to lie in `{file}`, which is not a file beside the index");
            return Err(Error::malformed(FORMAT, what));
        }
        let shard: PathBuf = folder.join(file);
        let tensors = mmap::map(&shard).and_then(|b| read_bytes(&b)).map_err(|e| e.at(&shard))?;
        shards.insert(file, tensors);
    }
    let mut out = NamedTensors::new();
    if let Some((_, first)) = shards.first() {
        out.metadata.clone_from(&first.metadata);
    }
    for (name, file) in &index.weight_map {
        let tensor = shards.get_mut(file.as_str()).and_then(|s| s.remove(name));
        let missing = || Error::malformed(FORMAT, format!("tensor `{name}` is not in `{file}`"));
        out.insert(name.clone(), tensor.ok_or_else(missing)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NamedTensors {
        let t = |shape: &[usize], data: &[f32]| HostTensor::new(shape, data.to_vec()).unwrap();
        let mut all = NamedTensors::new();
        all.insert("z.weight", t(&[2, 2], &[0.1, -2.0, 1e-9, 4.0]));
        all.insert("a.running_var", t(&[3], &[1e-30, 1.0, 3.3]));
        all.insert("a.num_batches_tracked", t(&[], &[16_777_216.0]));
        all.insert("b.weight", t(&[1, 3], &[1.0, 70_000.0, 2.0]));
        all.metadata.insert("model".into(), "mobilenet_v2".into());
        all.metadata.insert("licence".into(), "MIT \"quoted\"".into());
        all
    }

    #[test]
    fn f32_round_trip_keeps_everything_and_the_bytes_repeat() {
        let bytes = to_bytes(&sample(), Precision::F32);
        assert_eq!(read_bytes(&bytes).unwrap(), sample());
        assert_eq!(bytes, to_bytes(&sample(), Precision::F32));
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        let tracked = theirs.tensor("a.num_batches_tracked").unwrap();
        assert_eq!((tracked.dtype(), tracked.data()), (Dtype::I64, &16_777_216_i64.to_le_bytes()[..]));
    }

    #[test]
    fn half_precision_spares_vectors_and_what_would_overflow() {
        let bytes = to_bytes(&sample(), Precision::F16);
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        let dtypes = ["z.weight", "a.running_var", "b.weight"].map(|n| theirs.tensor(n).unwrap().dtype());
        assert_eq!(dtypes, [Dtype::F16, Dtype::F32, Dtype::F32]);
        let back = read_bytes(&bytes).unwrap();
        assert_eq!(back.get("z.weight").unwrap().data(), [0.099975586, -2.0, 0.0, 4.0]);
        assert_eq!(back.get("a.running_var"), sample().get("a.running_var"));
        let back = read_bytes(&to_bytes(&sample(), Precision::Bf16)).unwrap();
        assert_eq!(back.get("z.weight").unwrap().data(), [0.100_097_656, -2.0, 9.968062e-10, 4.0]);
        assert!(back.names().eq(sample().names()), "the order is the network's whatever the types");
    }

    #[test]
    fn shards_come_together_in_the_order_of_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut two) = (NamedTensors::new(), NamedTensors::new());
        for (name, tensor) in sample() {
            if name.starts_with('a') { &mut one } else { &mut two }.insert(name, tensor);
        }
        write(dir.path().join("m-1.safetensors"), &one, Precision::F32).unwrap();
        write(dir.path().join("m-2.safetensors"), &two, Precision::F32).unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        let index = |extra: &str| {
            let text = format!(
                r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{extra} "z.weight": "m-2.safetensors",
                "a.running_var": "m-1.safetensors", "b.weight": "m-2.safetensors"}}}}"#
            );
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let all = index("").unwrap();
        assert!(all.names().eq(["z.weight", "a.running_var", "b.weight"]));
        assert_eq!(all.get("b.weight"), sample().get("b.weight"));
        let error = |extra: &str| index(extra).unwrap_err().to_string();
        assert!(error(r#""x": "../m-1.safetensors","#).contains("not a file beside the index"));
        assert!(error(r#""x": "m-1.safetensors","#).contains("tensor `x` is not in `m-1.safetensors`"));
        assert!(error(r#""x": "m-3.safetensors","#).contains("m-3.safetensors"));
    }

    #[test]
    fn hostile_headers_are_errors() {
        let file = |header: &str, data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(header.as_bytes());
            bytes.resize(bytes.len() + data, 0);
            read_bytes(&bytes).map_err(|e| e.to_string())
        };
        let one = |shape: &str, end: u64| {
            format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
        };
        assert!(file(&one("[2]", 8), 8).is_ok());
        assert!(file(&one("[2]", 8), 4).is_err(), "truncated");
        assert!(file(&one("[3]", 8), 8).is_err(), "shape and size disagree");
        assert!(file(&one("[9223372036854775807, 4, 0]", 0), 0).is_err());
        assert!(
            file(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), 0).is_err(),
            "deep nesting"
        );
        assert!(read_bytes(&u64::MAX.to_le_bytes()).is_err());
        assert!(read_bytes(&[]).is_err());
        let fp8 = file(r#"{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#, 1).unwrap_err();
        assert!(fp8.contains("`x`") && fp8.contains("F8_E4M3"), "{fp8}");
    }
}
