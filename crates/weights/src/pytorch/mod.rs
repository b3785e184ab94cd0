//! PyTorch checkpoints: the zip layout, and the stream that was written before 1.6.
//!
//! What `torch.save` was given may be a state dict, a dict with a state dict in it beside optimizer, epoch and so on, or a
//! whole module. The state dict is found in any of them. A fastai `learn.save` file is the second kind.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use defrost_tensor::HostTensor;

use crate::archive::Archive;
use crate::elements::{self, Element};
use crate::mmap;
use crate::pickle::{Pickle, Ref, Value};
use crate::{Error, Format, NamedTensors, Result, budget};

mod write;

pub use write::write;

/// What a legacy file begins with: the pickle of a magic number.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// Where a checkpoint keeps its state dict, most likely first.
const MODEL_KEYS: [&str; 8] =
    ["state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights", "state_dict_ema"];
/// Prefixes that wrappers put before every name: data parallelism, and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Reads the state dict of a checkpoint, in its order; parameters and buffers of any float, integer or boolean type
/// become f32.
///
/// A dict of several things is searched for the one that is the model. Dicts in the state dict give names joined by dots.
/// `module.` and `_orig_mod.` are taken off where every name has them. Texts and numbers beside the state dict (`epoch`,
/// `arch`) become metadata.
///
/// # Errors
/// [`Error::File`] naming the file: it is damaged, several dicts in it could be the model, it has tensors that are
/// sparse, quantized or complex, or it asks for a Python object that a checkpoint has no need of ([`Error::Global`]).
/// Nothing in the file is run.
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| read_bytes(&bytes)).map_err(|e| e.at(path))
}

/// Reads a checkpoint that is in memory.
///
/// # Errors
/// As [`read`], without a file name.
pub fn read_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    if bytes.starts_with(b"PK") { read_zip(bytes) } else { read_legacy(bytes) }
}

fn read_zip(bytes: &[u8]) -> Result<NamedTensors> {
    const FORMAT: Format = Format::PyTorch;
    let mut archive = Archive::open(bytes, FORMAT)?;
    let names = archive.names();
    let prefix = names.iter().filter_map(|n| n.strip_suffix("data.pkl")).min_by_key(|p| p.len());
    let prefix = prefix.ok_or_else(|| Error::malformed(FORMAT, "the archive has no `data.pkl`"))?.to_owned();
    if names.iter().any(|n| *n == format!("{prefix}constants.pkl")) {
        return Err(Error::unsupported(FORMAT, "a TorchScript archive (save the state_dict instead)"));
    }
    let order = format!("{prefix}byteorder");
    let big_endian = names.contains(&order) && archive.read(&order)? == b"big";
    let text = archive.read(&format!("{prefix}data.pkl"))?;
    let pickle = Pickle::parse(&text, FORMAT)?;
    let length = bytes.len() as u64;
    let mut out = collect(&pickle, FORMAT, length, big_endian, |key| {
        archive.read(&format!("{prefix}data/{key}")).map(Bytes::Owned)
    })?;
    out.metadata.extend(archive.metadata(&format!("{prefix}{}", write::METADATA))?);
    Ok(out)
}

fn read_legacy(bytes: &[u8]) -> Result<NamedTensors> {
    const FORMAT: Format = Format::PyTorchLegacy;
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::parse(&bytes[at..], FORMAT)?;
        at += pickle.length;
        Ok(pickle)
    };
    // Magic number, protocol version, system, the object, and the keys of the storages that follow.
    let magic = next()?;
    if !matches!(magic.get(magic.root()), Value::Int(0x1950_a86a_20f9_469c_fc6c)) {
        return Err(Error::malformed(FORMAT, "it does not begin with PyTorch's magic number"));
    }
    let version = next()?;
    if version.size(version.root()) != Some(1001) {
        return Err(Error::unsupported(FORMAT, "a protocol other than 1001"));
    }
    let system = next()?;
    let little = system.entry(system.root(), "little_endian").and_then(|r| system.scalar(r));
    let big_endian = little.is_some_and(|l| l == "false");
    let object = next()?;
    let keys = next()?;

    // The sizes of elements are only in the object, in the persistent ids of its storages.
    let sizes = storage_sizes(&object)?;
    let mut storages: HashMap<String, Range<usize>> = HashMap::new();
    for &key in keys.sequence(keys.root()).ok_or_else(|| keys.bad("its storage keys are no list"))? {
        let key = keys.text(key).ok_or_else(|| keys.bad("a storage key is no text"))?;
        let bad = || Error::malformed(FORMAT, format!("storage `{key}` goes beyond the end of the file"));
        let size = sizes.get(key.as_ref());
        let &size =
            size.ok_or_else(|| Error::malformed(FORMAT, format!("storage `{key}` belongs to no tensor")))?;
        let count = bytes[at..].first_chunk::<8>().ok_or_else(bad)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| bad())?;
        let start = at + 8;
        let end =
            count.checked_mul(size).and_then(|n| start.checked_add(n)).filter(|&end| end <= bytes.len());
        at = end.ok_or_else(bad)?;
        storages.insert(key.into_owned(), start..at);
    }
    collect(&object, FORMAT, bytes.len() as u64, big_endian, |key| {
        let range = storages.get(key).cloned();
        let range =
            range.ok_or_else(|| Error::malformed(FORMAT, format!("storage `{key}` is not in the file")))?;
        Ok(Bytes::Borrowed(&bytes[range]))
    })
}

type Bytes<'a> = std::borrow::Cow<'a, [u8]>;

/// The size of an element of every storage that the pickle names.
fn storage_sizes(pickle: &Pickle<'_>) -> Result<HashMap<String, usize>> {
    let mut out = HashMap::new();
    for id in pickle.persistent_ids() {
        let storage = Storage::parse(pickle, id)?;
        // A file may hold storages of types that are not read, as long as no tensor of the model uses them.
        out.insert(storage.key, storage.size);
    }
    Ok(out)
}

/// `('storage', torch.FloatStorage, key, location, count)`, in legacy files with a view `(key, offset, count)` or None.
struct Storage {
    key: String,
    kind: String,
    size: usize,
    /// Where a view begins in the storage, in elements.
    offset: usize,
}

impl Storage {
    fn parse(pickle: &Pickle<'_>, id: Ref) -> Result<Self> {
        let bad = || pickle.bad("a storage is not described as PyTorch does");
        let parts = pickle.sequence(id).ok_or_else(bad)?;
        let &[tag, kind, key, _, _, ref view @ ..] = parts else { return Err(bad()) };
        if pickle.text(tag).is_none_or(|t| t != "storage") {
            return Err(bad());
        }
        let kind = pickle.global(kind).ok_or_else(bad)?.to_owned();
        let key = pickle.text(key).ok_or_else(bad)?.into_owned();
        let offset = match view.first().map(|&v| (pickle.sequence(v), pickle.get(v))) {
            None | Some((None, Value::None)) => 0,
            Some((Some(&[_, offset, _]), _)) => pickle.size(offset).ok_or_else(bad)?,
            _ => return Err(bad()),
        };
        let plain = kind.trim_start_matches("torch.").trim_start_matches("cuda.").trim_end_matches("Storage");
        let size = match element(&kind) {
            Some(element) => element.size(),
            None if plain == "ComplexFloat" => 8,
            None if plain == "ComplexDouble" => 16,
            None if plain == "QInt32" => 4,
            None => 1,
        };
        Ok(Self { key, kind, size, offset })
    }
}

/// The element type of a storage class or a dtype.
fn element(global: &str) -> Option<Element> {
    let name = global.strip_prefix("torch.")?;
    Some(match name.strip_prefix("cuda.").unwrap_or(name) {
        "BoolStorage" | "bool" => Element::Bool,
        "ByteStorage" | "uint8" => Element::U8,
        "CharStorage" | "int8" => Element::I8,
        "ShortStorage" | "int16" | "short" => Element::I16,
        "IntStorage" | "int32" | "int" => Element::I32,
        "LongStorage" | "int64" | "long" => Element::I64,
        "UInt16Storage" | "uint16" => Element::U16,
        "UInt32Storage" | "uint32" => Element::U32,
        "UInt64Storage" | "uint64" => Element::U64,
        "HalfStorage" | "float16" | "half" => Element::F16,
        "BFloat16Storage" | "bfloat16" => Element::Bf16,
        "FloatStorage" | "float32" | "float" => Element::F32,
        "DoubleStorage" | "float64" | "double" => Element::F64,
        _ => return None,
    })
}

/// Whether a call makes a tensor, of a kind that is read or not.
fn is_tensor(pickle: &Pickle<'_>, at: Ref) -> bool {
    pickle.call(at).is_some_and(|(name, _)| {
        name.contains("._rebuild_")
            || matches!(name, "torch.nn.parameter.Parameter" | "torch.nn.parameter.Buffer")
    })
}

/// A strided view of a storage.
struct View {
    key: String,
    element: Element,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

/// The view that a call would have made.
fn view(pickle: &Pickle<'_>, call: &str, args: &[Ref], depth: usize) -> Result<View> {
    let bad = || pickle.bad(format!("a call of `{call}` without its arguments"));
    let inner = |at: Option<&Ref>| {
        let (call, args) = at.and_then(|&at| pickle.call(at)).filter(|_| depth < 4).ok_or_else(bad)?;
        view(pickle, call, args, depth + 1)
    };
    match call {
        "torch._utils._rebuild_tensor"
        | "torch._utils._rebuild_tensor_v2"
        | "torch._utils._rebuild_tensor_v3" => {
            let &[storage, offset, shape, stride, ref rest @ ..] = args else { return Err(bad()) };
            let Value::Persistent(id) = pickle.get(storage) else { return Err(bad()) };
            let storage = Storage::parse(pickle, *id)?;
            // The third kind has an untyped storage and says the type itself.
            let kind = match rest {
                &[_, _, dtype, ..] if call.ends_with("_v3") => {
                    pickle.global(dtype).ok_or_else(bad)?.to_owned()
                }
                _ => storage.kind,
            };
            let element =
                element(&kind).ok_or_else(|| pickle.unsupported(format!("a tensor of type `{kind}`")))?;
            let offset = pickle.size(offset).and_then(|o| o.checked_add(storage.offset));
            let (shape, stride) = (pickle.sizes(shape), pickle.sizes(stride));
            let (Some(offset), Some(shape), Some(stride)) = (offset, shape, stride) else {
                return Err(bad());
            };
            if shape.len() != stride.len() {
                return Err(bad());
            }
            Ok(View { key: storage.key, element, offset, shape, stride })
        }
        "torch._utils._rebuild_parameter"
        | "torch._utils._rebuild_parameter_with_state"
        | "torch.nn.parameter.Parameter"
        | "torch.nn.parameter.Buffer" => inner(args.first()),
        "torch._tensor._rebuild_from_type_v2" => {
            let &[call, _, args, ..] = args else { return Err(bad()) };
            let (call, args) = (pickle.global(call), pickle.sequence(args));
            let (Some(call), Some(args), true) = (call, args, depth < 4) else { return Err(bad()) };
            view(pickle, call, args, depth + 1)
        }
        _ => Err(pickle.unsupported(format!("a tensor made by `{call}`"))),
    }
}

impl View {
    /// The elements of the view in row-major order.
    fn read(&self, storage: &[u8], big_endian: bool) -> Option<HostTensor> {
        let count = elements::count(&self.shape)?;
        if count == 0 {
            return elements::tensor(&self.shape, Vec::new(), false);
        }
        let size = self.element.size();
        // One past the last element that the view reaches.
        let steps = self.shape.iter().zip(&self.stride).map(|(&d, &s)| (d - 1).checked_mul(s));
        let last = steps.into_iter().try_fold(self.offset, |sum, step| sum.checked_add(step?))?;
        let end = last.checked_add(1)?.checked_mul(size)?;
        let bytes = storage.get(self.offset.checked_mul(size)?..end)?;
        let mut expected = 1;
        let contiguous = self.shape.iter().zip(&self.stride).rev().all(|(&d, &s)| {
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        });
        if contiguous {
            return elements::tensor(&self.shape, self.element.decode(bytes, big_endian), false);
        }
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..count {
            out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.stride[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        elements::tensor(&self.shape, self.element.decode(&out, big_endian), false)
    }
}

/// The model's tensors, read storage by storage so that only one is in memory at a time.
fn collect<'s>(
    pickle: &Pickle<'_>,
    format: Format,
    length: u64,
    big_endian: bool,
    mut storage: impl FnMut(&str) -> Result<Bytes<'s>>,
) -> Result<NamedTensors> {
    let model = find_model(pickle, format)?;
    let leaves = pickle.leaves(model, &|at| is_tensor(pickle, at))?;
    let mut left = budget(length);
    let mut views = Vec::with_capacity(leaves.len());
    for (name, at) in leaves {
        let (call, args) = pickle.call(at).ok_or_else(|| pickle.bad(format!("tensor `{name}` is none")))?;
        let view = view(pickle, call, args, 0).map_err(|e| match e {
            Error::Malformed { what, .. } => Error::malformed(format, format!("tensor `{name}`: {what}")),
            Error::Unsupported { what, .. } => {
                Error::unsupported(format, format!("tensor `{name}`, {what},"))
            }
            other => other,
        })?;
        let bytes =
            elements::count(&view.shape).and_then(|n| n.checked_mul(4)).map_or(u64::MAX, |n| n as u64);
        left = left.checked_sub(bytes).ok_or_else(|| Error::TooLarge {
            format,
            what: format!("what is unpacked up to tensor `{name}`"),
            limit: "64 times the file's size".into(),
        })?;
        views.push((name, view));
    }
    let mut by_storage: Vec<usize> = (0..views.len()).collect();
    by_storage.sort_by(|&a, &b| views[a].1.key.cmp(&views[b].1.key));
    let mut tensors: Vec<Option<HostTensor>> = vec![None; views.len()];
    for group in by_storage.chunk_by(|&a, &b| views[a].1.key == views[b].1.key) {
        let bytes = storage(&views[group[0]].1.key)?;
        for &i in group {
            let (name, view) = &views[i];
            let tensor = view.read(&bytes, big_endian);
            let reaches = || format!("tensor `{name}` of shape {:?} reaches beyond its storage", view.shape);
            tensors[i] = Some(tensor.ok_or_else(|| Error::malformed(format, reaches()))?);
        }
    }

    let mut names: Vec<String> = views.into_iter().map(|(name, _)| name).collect();
    while let Some(wrapper) = WRAPPERS.iter().find(|w| names.iter().all(|n| n.starts_with(**w))) {
        names.iter_mut().for_each(|n| drop(n.drain(..wrapper.len())));
    }
    let mut out: NamedTensors = names.into_iter().zip(tensors).filter_map(|(n, t)| Some((n, t?))).collect();
    for &(key, value) in pickle.dict(pickle.root()).unwrap_or_default() {
        if let (Some(key), Some(value)) = (pickle.text(key), pickle.scalar(value).filter(|v| v.len() <= 4096))
        {
            out.metadata.insert(key.into_owned(), value);
        }
    }
    Ok(out)
}

/// The state dict, or the module, in what was saved.
fn find_model(pickle: &Pickle<'_>, format: Format) -> Result<Ref> {
    let root = pickle.root();
    let tensors = |at| pickle.leaves(at, &|at| is_tensor(pickle, at));
    if tensors(root)?.is_empty() {
        return Err(Error::malformed(format, "it holds no tensor"));
    }
    let Some(entries) = pickle.dict(root) else { return Ok(root) };
    if entries.iter().any(|&(_, v)| is_tensor(pickle, v)) {
        return Ok(root);
    }
    for key in MODEL_KEYS {
        if let Some(found) = pickle.entry(root, key)
            && !tensors(found)?.is_empty()
        {
            return Ok(found);
        }
    }
    let mut others = Vec::new();
    for &(key, value) in entries {
        let key = pickle.scalar(key).unwrap_or_default();
        if !key.starts_with("opt") && !tensors(value)?.is_empty() {
            others.push((key, value));
        }
    }
    match &others[..] {
        [(_, only)] => Ok(*only),
        // Parts of one network, each with its own dict.
        _ if others.iter().all(|(_, v)| pickle.dict(*v).is_some()) && !others.is_empty() => Ok(root),
        _ => {
            let keys: Vec<&str> = others.iter().map(|(k, _)| k.as_str()).collect();
            Err(Error::malformed(
                format,
                format!("none of its entries is clearly the model: {}", keys.join(", ")),
            ))
        }
    }
}
