//! NumPy's `.npy` (one array) and `.npz` (a zip archive of them).
//!
//! The header is read here instead of by a library: those at hand parse it as a general Python literal and recurse as
//! deep as the file says.

use std::io::Write;
use std::path::Path;

use defrost_tensor::HostTensor;

use crate::archive::Archive;
use crate::elements::{self, Element};
use crate::mmap;
use crate::{Error, Format, NamedTensors, Result, atomic};

const FORMAT: Format = Format::Npy;
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
/// The entry of an `.npz` with its metadata.
const METADATA: &str = "defrost.json";

/// Reads a `.npy` file: floats, integers and booleans of either byte order, row- or column-major, as f32.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be opened, is shorter than its header says, or holds something that is no
/// plain number (complex numbers, strings, records, Python objects).
pub fn read(path: impl AsRef<Path>) -> Result<HostTensor> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| read_bytes(&bytes)).map_err(|e| e.at(path))
}

/// Reads a `.npy` file that is in memory.
///
/// # Errors
/// As [`read`], without a file name.
pub fn read_bytes(bytes: &[u8]) -> Result<HostTensor> {
    let bad = |what: &str| Error::malformed(FORMAT, what);
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("it does not begin with \\x93NUMPY"))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| bad("it ends in the header"))?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, r)| (usize::from(u16::from_le_bytes(*n)), r)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, r)| (u32::from_le_bytes(*n) as usize, r)),
        v => return Err(Error::unsupported(FORMAT, format!("version {v} of the header"))),
    }
    .ok_or_else(|| bad("it ends in the header"))?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| bad("it ends in the header"))?;
    let header = Header::parse(header)?;
    let count = elements::count(&header.shape)
        .ok_or_else(|| bad(&format!("the shape {:?} is beyond any memory", header.shape)))?;
    let data = count.checked_mul(header.element.size()).and_then(|n| data.get(..n)).ok_or_else(|| {
        bad(&format!(
            "the shape {:?} needs {count} numbers of {} bytes, but {} bytes follow",
            header.shape,
            header.element.size(),
            data.len()
        ))
    })?;
    elements::tensor(&header.shape, header.element.decode(data, header.big_endian), header.fortran)
        .ok_or_else(|| bad("the shape does not fit the data"))
}

/// Writes `tensor` to `path` as little-endian f32 in row-major order, whole or not at all ([`atomic`]).
///
/// # Errors
/// As [`atomic::write`].
pub fn write(path: impl AsRef<Path>, tensor: &HostTensor) -> Result<()> {
    atomic::write(path, |w| write_to(w, tensor))
}

/// Writes `tensors` to `path` as an `.npz` file of little-endian f32 arrays, whole or not at all ([`atomic`]). Metadata lies
/// beside them as `defrost.json`, which [`read_npz`] reads.
///
/// # Errors
/// As [`atomic::write`].
pub fn write_npz(path: impl AsRef<Path>, tensors: &NamedTensors) -> Result<()> {
    atomic::write(path, |w| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .large_file(true);
        for (name, tensor) in tensors.iter() {
            zip.start_file(format!("{name}.npy"), options).map_err(std::io::Error::other)?;
            write_to(&mut zip, tensor)?;
        }
        if !tensors.metadata.is_empty() {
            zip.start_file(METADATA, options).map_err(std::io::Error::other)?;
            serde_json::to_writer(&mut zip, &tensors.metadata)?;
        }
        w.write_all(zip.finish().map_err(std::io::Error::other)?.get_ref())
    })
}

fn write_to(w: &mut dyn Write, tensor: &HostTensor) -> std::io::Result<()> {
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let dims = if tensor.shape().len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data begins at a multiple of 64 bytes, and a newline ends the header.
    let padded = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    w.write_all(MAGIC)?;
    w.write_all(&[1, 0])?;
    // 32 extents of 20 digits are far below 64 KiB.
    w.write_all(&(header.len() as u16).to_le_bytes())?;
    w.write_all(header.as_bytes())?;
    tensor.data().chunks(1 << 16).try_for_each(|part| {
        let bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
        w.write_all(&bytes)
    })
}

/// Reads every array of an `.npz` file, in the archive's order, under its name without `.npy`.
///
/// # Errors
/// [`Error::File`] naming the file: no zip archive, an array that [`read`] would refuse (named), or an archive that
/// unpacks to far more than its size lets expect ([`Error::TooLarge`]).
pub fn read_npz(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| read_npz_bytes(&bytes)).map_err(|e| e.at(path))
}

/// Reads an `.npz` file that is in memory.
///
/// # Errors
/// As [`read_npz`], without a file name.
pub fn read_npz_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    let mut archive = Archive::open(bytes, Format::Npz)?;
    let mut out = NamedTensors::new();
    for name in archive.names() {
        let Some(array) = name.strip_suffix(".npy") else { continue };
        let bytes = archive.read(&name)?;
        let tensor = read_bytes(&bytes).map_err(|e| match e {
            Error::Malformed { what, .. } => {
                Error::malformed(Format::Npz, format!("array `{array}`: {what}"))
            }
            Error::Unsupported { what, .. } => {
                Error::unsupported(Format::Npz, format!("array `{array}` with {what}"))
            }
            other => other,
        })?;
        out.insert(array, tensor);
    }
    out.metadata = archive.metadata(METADATA)?;
    Ok(out)
}

/// What the header of an array says.
struct Header {
    element: Element,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` and nothing more general.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::malformed(FORMAT, what);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the header is not text".into()))?;
        let value = |key: &str| {
            ['\'', '"']
                .iter()
                .find_map(|q| text.split_once(&format!("{q}{key}{q}")))
                .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
                .map(str::trim_start)
                .ok_or_else(|| bad(format!("the header has no `{key}`")))
        };
        let descr = value("descr")?;
        let quoted = descr.strip_prefix(['\'', '"']).and_then(|d| d.split(['\'', '"']).next());
        let descr = quoted.ok_or_else(|| Error::unsupported(FORMAT, "an array of records"))?;
        let (element, big_endian) =
            element(descr).ok_or_else(|| Error::unsupported(FORMAT, format!("the number type `{descr}`")))?;
        let order = value("fortran_order")?;
        let fortran = match (order.starts_with("True"), order.starts_with("False")) {
            (true, _) => true,
            (_, true) => false,
            _ => return Err(bad("`fortran_order` is neither True nor False".into())),
        };
        let shape = value("shape")?;
        let inside = shape.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(s, _)| s);
        let shape = inside
            .and_then(|s| {
                let parts = s.split(',').map(str::trim).filter(|p| !p.is_empty());
                parts.map(|p| p.trim_end_matches('L').parse::<usize>().ok()).collect::<Option<Vec<_>>>()
            })
            .ok_or_else(|| bad("`shape` is not a tuple of whole numbers".into()))?;
        Ok(Self { element, big_endian, fortran, shape })
    }
}

/// The element type and byte order of a NumPy type string such as `<f4`; whether it is big-endian.
pub(crate) fn element(descr: &str) -> Option<(Element, bool)> {
    let (big, kind) = match descr.split_at_checked(1)? {
        ("<" | "|" | "=", kind) => (false, kind),
        (">", kind) => (true, kind),
        _ => (false, descr),
    };
    let element = match kind {
        "b1" | "?" => Element::Bool,
        "u1" => Element::U8,
        "i1" => Element::I8,
        "u2" => Element::U16,
        "i2" => Element::I16,
        "u4" => Element::U32,
        "i4" => Element::I32,
        "u8" => Element::U64,
        "i8" => Element::I64,
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        _ => return None,
    };
    Some((element, big))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut out = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
        out.extend_from_slice(data);
        out
    }

    #[test]
    fn writes_what_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for shape in [vec![], vec![3], vec![2, 3], vec![0, 4], vec![70_000, 2]] {
            let n = shape.iter().product();
            let t = HostTensor::new(shape, (0..n).map(|v| v as f32).collect()).unwrap();
            write(&path, &t).unwrap();
            assert_eq!(read(&path).unwrap(), t);
        }
    }

    #[test]
    fn an_npz_holds_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let mut all = NamedTensors::new();
        all.insert("layer1.0.conv1.weight", HostTensor::new([2, 1], vec![1.5, -2.0]).unwrap());
        all.insert("bn1.num_batches_tracked", HostTensor::zeros([]));
        write_npz(&path, &all).unwrap();
        assert_eq!(read_npz(&path).unwrap(), all);
        all.metadata.insert("geometry".into(), "keras".into());
        write_npz(&path, &all).unwrap();
        assert_eq!(read_npz(&path).unwrap(), all);
    }

    #[test]
    fn both_orders_and_both_ends() {
        let le: Vec<u8> = [1_f64, 2., 3., 4., 5., 6.].iter().flat_map(|v| v.to_le_bytes()).collect();
        let be: Vec<u8> = [1_i16, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_be_bytes()).collect();
        let c = read_bytes(&npy("'<f8'", false, "(2, 3)", &le)).unwrap();
        let f = read_bytes(&npy("'>i2'", true, "(2L, 3L)", &be)).unwrap();
        assert_eq!(c.data(), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(c, f);
    }

    #[test]
    fn what_is_no_array_of_numbers_is_named() {
        let error = |bytes: &[u8]| read_bytes(bytes).unwrap_err().to_string();
        assert!(error(&npy("'|O'", false, "(1,)", &[])).contains("`|O`"));
        assert!(error(&npy("[('x', '<f4')]", false, "(1,)", &[])).contains("records"));
        assert!(error(&npy("'<f4'", false, "(2,)", &[0; 7])).contains("7 bytes follow"));
        assert!(
            error(&npy("'<f4'", false, "(18446744073709551615, 2)", &[0; 8])).contains("beyond any memory")
        );
        assert!(error(&npy("'<f4'", false, "(-1,)", &[])).contains("shape"));
        assert!(error(b"\x93NUMPY\x01\x00\xff\xff{").contains("ends in the header"));
        assert!(error(b"PK").contains("NUMPY"));
    }
}
