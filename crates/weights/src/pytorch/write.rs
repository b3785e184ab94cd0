//! A state dict as `torch.save` writes it: a zip archive with a pickle (protocol 2) and one file a storage.

use std::io::{self, Cursor, Write};
use std::path::Path;

use defrost_tensor::HostTensor;
use safetensors::Dtype;

use crate::safetensors::{plan, write_data};
use crate::{NamedTensors, Precision, Result, atomic};

/// The entry of the archive with metadata, where TorchScript has a file's extra texts.
pub(super) const METADATA: &str = "extra/defrost.json";

/// Writes `tensors` to `path` as a state dict that `torch.load` reads, whole or not at all ([`atomic`]). Metadata lies beside
/// it in the archive, where [`read`](super::read) finds it and PyTorch does not look.
///
/// A tensor whose name ends in `num_batches_tracked` is written as a 64-bit integer, as PyTorch has it.
///
/// # Errors
/// As [`atomic::write`].
pub fn write(path: impl AsRef<Path>, tensors: &NamedTensors, precision: Precision) -> Result<()> {
    let plan = plan(tensors, precision);
    atomic::write(path, |w| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        // PyTorch maps storages where they lie at a multiple of 64 bytes.
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .with_alignment(64)
            .large_file(true);
        let mut part = |name: &str, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>| {
            zip.start_file(format!("archive/{name}"), options).map_err(io::Error::other)?;
            write(&mut zip)
        };
        part("data.pkl", &mut |w| w.write_all(&pickle(tensors, &plan)))?;
        part("byteorder", &mut |w| w.write_all(b"little"))?;
        for (i, ((_, tensor), &dtype)) in tensors.iter().zip(&plan).enumerate() {
            part(&format!("data/{i}"), &mut |w| write_data(w, tensor.data(), dtype))?;
        }
        if !tensors.metadata.is_empty() {
            part(METADATA, &mut |w| Ok(serde_json::to_writer(w, &tensors.metadata)?))?;
        }
        part("version", &mut |w| w.write_all(b"3\n"))?;
        w.write_all(zip.finish().map_err(io::Error::other)?.get_ref())
    })
}

/// `OrderedDict([(name, torch._utils._rebuild_tensor_v2(storage i, …)), …])`.
fn pickle(tensors: &NamedTensors, plan: &[Dtype]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (i, ((name, tensor), dtype)) in tensors.iter().zip(plan).enumerate() {
        text(&mut out, name);
        let storage = match dtype {
            Dtype::I64 => "LongStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            _ => "FloatStorage",
        };
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend_from_slice(format!("ctorch\n{storage}\n").as_bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        integer(&mut out, tensor.len());
        out.push(b't');
        out.push(b'Q');
        integer(&mut out, 0);
        tuple(&mut out, tensor.shape());
        tuple(&mut out, &strides(tensor));
        // No gradient is asked for, and there are no hooks.
        out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend_from_slice(b"u.");
    out
}

/// Row-major strides in elements.
fn strides(tensor: &HostTensor) -> Vec<usize> {
    let shape = tensor.shape();
    (1..=shape.len()).map(|i| shape[i..].iter().product()).collect()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // A name of 4 GiB does not occur: no format that is read here has one.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// `LONG1` with nine bytes: as many as any extent needs and a zero, for a sign.
fn integer(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&[0x8A, 9]);
    out.extend_from_slice(&(n as u64).to_le_bytes());
    out.push(0);
}

fn tuple(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    values.iter().for_each(|&n| integer(out, n));
    out.push(b't');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pytorch::read;

    #[test]
    fn a_state_dict_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pth");
        let mut all = NamedTensors::new();
        all.insert(
            "layer1.0.conv1.weight",
            HostTensor::new([2, 1, 1, 3], vec![1.5, -2., 0., 4., 5., 6.]).unwrap(),
        );
        all.insert("bn1.num_batches_tracked", HostTensor::full([], 7.0));
        all.insert("fc.bias", HostTensor::vector(vec![1e-30; 300]));
        all.insert("none", HostTensor::zeros([0, 4]));
        write(&path, &all, Precision::F32).unwrap();
        assert_eq!(read(&path).unwrap(), all);
        all.metadata.insert("geometry".into(), "keras".into());
        write(&path, &all, Precision::F32).unwrap();
        assert_eq!(read(&path).unwrap(), all);
        let bytes = std::fs::read(&path).unwrap();
        write(&path, &all, Precision::F32).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same tensors give the same bytes");
        write(&path, &all, Precision::Bf16).unwrap();
        assert_eq!(read(&path).unwrap(), all, "these values are exact in bfloat16");
    }
}
