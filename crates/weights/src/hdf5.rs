//! HDF5 as weight files need it: groups, text attributes, and arrays as tensors.

use defrost_tensor::HostTensor;
use hdf5_pure::{AttrValue, Dataset, Datatype, DatatypeByteOrder, File, FormatError, Group, Source};

use crate::elements::{self, Element};
use crate::mmap::FileBytes;
use crate::{Error, Format, Result};

/// Groups below groups that a reader follows; a file can link a group into itself.
pub(crate) const MAX_DEPTH: usize = 32;
/// The objects a reader looks at.
const MAX_OBJECTS: usize = 1 << 20;

/// An HDF5 file and what may still be read from it.
pub(crate) struct Hdf5 {
    file: File,
    format: Format,
    /// The bytes that arrays may still take: a hostile file declares terabytes and stores none of them.
    left: u64,
    objects: usize,
}

impl Hdf5 {
    /// Opens a mapped file.
    pub(crate) fn map(bytes: FileBytes, format: Format) -> Result<Self> {
        let length = bytes.len() as u64;
        Self::new(File::from_source(Mapped(bytes)), length, format)
    }

    /// Opens a file that is in memory.
    pub(crate) fn bytes(bytes: &[u8], format: Format) -> Result<Self> {
        Self::new(File::from_bytes(bytes.to_vec()), bytes.len() as u64, format)
    }

    fn new(file: Result<File, hdf5_pure::Error>, length: u64, format: Format) -> Result<Self> {
        let file = file.map_err(|e| Error::malformed(format, e.to_string()))?;
        Ok(Self { file, format, left: crate::budget(length), objects: MAX_OBJECTS })
    }

    /// The outermost group.
    pub(crate) fn root(&self) -> Group {
        self.file.root()
    }

    /// A library error as one of ours.
    pub(crate) fn bad(&self, at: &str, e: impl std::fmt::Display) -> Error {
        Error::malformed(self.format, format!("at `{at}`: {e}"))
    }

    /// Counts one more object that is looked at.
    pub(crate) fn visit(&mut self, at: &str) -> Result<()> {
        self.objects = self.objects.checked_sub(1).ok_or_else(|| Error::TooLarge {
            format: self.format,
            what: format!("the number of objects, at `{at}`,"),
            limit: MAX_OBJECTS.to_string(),
        })?;
        Ok(())
    }

    /// The text attribute `name` of a group, also where it is split into `name0`, `name1`, … as Keras does above 64 KiB.
    pub(crate) fn strings(&self, group: &Group, at: &str, name: &str) -> Result<Option<Vec<String>>> {
        let attrs = group.attrs().map_err(|e| self.bad(at, e))?;
        let text = |key: &str| attrs.get(key).and_then(AttrValue::as_strings).map(<[String]>::to_vec);
        if let Some(whole) = text(name) {
            return Ok(Some(whole));
        }
        let parts: Vec<_> = (0..).map_while(|i| text(&format!("{name}{i}"))).collect();
        // An empty list of names is stored as an empty array of floats.
        let empty = attrs.contains_key(name).then(Vec::new);
        Ok(if parts.is_empty() { empty } else { Some(parts.concat()) })
    }

    /// A numeric array as a tensor.
    pub(crate) fn tensor(&mut self, dataset: &Dataset, at: &str) -> Result<HostTensor> {
        self.visit(at)?;
        let datatype = dataset.datatype().map_err(|e| self.bad(at, e))?;
        let (element, big_endian) = element(&datatype)
            .ok_or_else(|| Error::unsupported(self.format, format!("the array type at `{at}`")))?;
        let shape = dataset.shape().map_err(|e| self.bad(at, e))?;
        let shape: Option<Vec<usize>> = shape.into_iter().map(|d| d.try_into().ok()).collect();
        let beyond = || Error::malformed(self.format, format!("the array at `{at}` is beyond any memory"));
        let shape = shape.ok_or_else(beyond)?;
        let bytes = elements::count(&shape).and_then(|n| n.checked_mul(element.size())).ok_or_else(beyond)?;
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(|| Error::TooLarge {
            format: self.format,
            what: format!("what is unpacked up to `{at}`"),
            limit: "64 times the file's size".into(),
        })?;
        let raw = dataset.read_raw().map_err(|e| self.bad(at, e))?;
        if raw.len() != bytes {
            return Err(self.bad(at, format!("{bytes} bytes expected, {} found", raw.len())));
        }
        elements::tensor(&shape, element.decode(&raw, big_endian), false)
            .ok_or_else(|| self.bad(at, "its shape"))
    }
}

fn element(datatype: &Datatype) -> Option<(Element, bool)> {
    let (element, order) = match datatype {
        Datatype::FixedPoint { size, byte_order, layout } => {
            let element = match (size, layout.signed) {
                (1, false) => Element::U8,
                (1, true) => Element::I8,
                (2, false) => Element::U16,
                (2, true) => Element::I16,
                (4, false) => Element::U32,
                (4, true) => Element::I32,
                (8, false) => Element::U64,
                (8, true) => Element::I64,
                _ => return None,
            };
            (element, byte_order)
        }
        Datatype::FloatingPoint { size, byte_order, layout } => {
            let element = match (size, layout.exponent_size) {
                (2, 5) => Element::F16,
                (2, 8) => Element::Bf16,
                (4, 8) => Element::F32,
                (8, 11) => Element::F64,
                _ => return None,
            };
            (element, byte_order)
        }
        _ => return None,
    };
    match order {
        DatatypeByteOrder::LittleEndian => Some((element, false)),
        DatatypeByteOrder::BigEndian => Some((element, true)),
        DatatypeByteOrder::Vax => None,
    }
}

/// A mapped file as the library reads it.
struct Mapped(FileBytes);

impl Source for Mapped {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.checked_add(buf.len());
        let bytes = end.and_then(|end| self.0.get(start..end)).ok_or(FormatError::UnexpectedEof {
            expected: start.saturating_add(buf.len()),
            available: self.0.len(),
        })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}
