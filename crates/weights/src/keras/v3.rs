//! The `.weights.h5` of Keras 3 and the `.keras` archive around it.
//!
//! These files address a layer by its class and a count (`layers/conv2d_3`), and a variable by its number. The layer's
//! name stands beside it in files of later releases; a `.keras` archive has the configuration, from which the names, the
//! order and the meaning of the numbers follow.

use std::collections::HashMap;
use std::path::Path;

use defrost_tensor::HostTensor;
use hdf5_pure::Group;
use serde_json::Value;

use crate::archive::Archive;
use crate::hdf5::{Hdf5, MAX_DEPTH};
use crate::mmap;
use crate::{Error, Format, NamedTensors, Result};

/// Groups of the root that are no weights.
const NOT_WEIGHTS: [&str; 5] = ["optimizer", "metrics", "compile_metrics", "_metrics", "loss_tracker"];
/// Groups whose members are layers.
const CONTAINERS: [&str; 2] = ["layers", "_layer_checkpoint_dependencies"];

/// Reads the weights of a Keras 3 `.weights.h5` file, ordered by layer class and count: the file knows no other order.
/// Optimizer state is left out.
///
/// Variables have their name (`kernel`, `gamma`) where the layer's class says it, and their number otherwise.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be opened, is no sound HDF5 file, or has none of Keras 3's layers.
pub fn read_weights(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    let read = || collect(Hdf5::map(mmap::map(path)?, Format::KerasWeights)?, &Config::default());
    read().map_err(|e| e.at(path))
}

/// Reads a `.weights.h5` file that is in memory.
///
/// # Errors
/// As [`read_weights`], without a file name.
pub fn read_weights_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    collect(Hdf5::bytes(bytes, Format::KerasWeights)?, &Config::default())
}

/// Reads the weights of a `.keras` archive, in the order of its layers. The metadata has `model_config` (JSON) and
/// `keras_version`.
///
/// # Errors
/// [`Error::File`] naming the file: it is no zip archive, its weights are as in [`read_weights`], or its configuration is
/// no JSON.
pub fn read_archive(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    mmap::map(path).and_then(|bytes| read_archive_bytes(&bytes)).map_err(|e| e.at(path))
}

/// Reads a `.keras` archive that is in memory.
///
/// # Errors
/// As [`read_archive`], without a file name.
pub fn read_archive_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    const FORMAT: Format = Format::KerasArchive;
    let mut archive = Archive::open(bytes, FORMAT)?;
    let text = String::from_utf8(archive.read("config.json")?)
        .map_err(|_| Error::malformed(FORMAT, "its configuration is no text"))?;
    let config: Value = serde_json::from_str(&text)
        .map_err(|e| Error::malformed(FORMAT, format!("its configuration: {e}")))?;
    let mut layers = Config::default();
    layers.add(&config, "");
    let mut out = collect(Hdf5::bytes(&archive.read("model.weights.h5")?, FORMAT)?, &layers)?;
    out.metadata.insert("model_config".into(), text);
    let metadata: Option<Value> =
        archive.read("metadata.json").ok().and_then(|m| serde_json::from_slice(&m).ok());
    if let Some(version) = metadata.as_ref().and_then(|m| m["keras_version"].as_str()) {
        out.metadata.insert("keras_version".into(), version.into());
    }
    Ok(out)
}

/// What the configuration says of a layer.
struct Layer {
    place: usize,
    name: String,
    class: String,
    /// Whether a batch norm has a scale and an offset.
    affine: (bool, bool),
}

/// The layers of a configuration by their path in the file (`layers/functional/layers/conv2d_1`).
#[derive(Default)]
struct Config(HashMap<String, Layer>);

impl Config {
    fn add(&mut self, model: &Value, path: &str) {
        let layers = model.pointer("/config/layers").and_then(Value::as_array);
        let mut counts: HashMap<String, usize> = HashMap::new();
        for layer in layers.into_iter().flatten() {
            let class = snake_case(layer["class_name"].as_str().unwrap_or_default());
            let count = counts.entry(class.clone()).or_default();
            let key = if *count == 0 { class.clone() } else { format!("{class}_{count}") };
            *count += 1;
            let path = format!("{path}layers/{key}");
            let config = &layer["config"];
            let flag = |key: &str| config[key].as_bool().unwrap_or(true);
            let entry = Layer {
                place: self.0.len(),
                name: config["name"].as_str().unwrap_or(&key).into(),
                class,
                affine: (flag("scale"), flag("center")),
            };
            self.0.insert(path.clone(), entry);
            // JSON nests at most 128 deep, which bounds this too.
            self.add(layer, &format!("{path}/"));
        }
    }
}

/// Keras' own rule: `DepthwiseConv2D` is `depthwise_conv2d`, `ReLU` is `re_lu`.
fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let before = i.checked_sub(1).map(|p| chars[p]);
        let after = chars.get(i + 1);
        let begins_word = c.is_uppercase() && after.is_some_and(|a| a.is_lowercase()) && before.is_some();
        let after_lower = c.is_uppercase() && before.is_some_and(char::is_lowercase);
        if begins_word || after_lower {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

struct Walk<'c> {
    file: Hdf5,
    config: &'c Config,
    /// Place in the configuration, name, whole path, tensor.
    found: Vec<(usize, String, String, HostTensor)>,
}

fn collect(file: Hdf5, config: &Config) -> Result<NamedTensors> {
    let root = file.root();
    let mut walk = Walk { file, config, found: Vec::new() };
    walk.object(&root, "", None, 0)?;
    let Walk { file, mut found, .. } = walk;
    if found.is_empty() {
        return Err(file.bad("/", "there is no layer with variables"));
    }
    found.sort_by_key(|(place, ..)| *place);
    let mut out = NamedTensors::new();
    for (_, name, path, tensor) in found {
        let name = if out.contains(&name) { path } else { name };
        out.insert(name, tensor);
    }
    Ok(out)
}

impl Walk<'_> {
    /// An object with variables and parts. `owner` is the layer name to put before its variables, where it has one.
    fn object(&mut self, group: &Group, path: &str, owner: Option<&str>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.file.bad(path, format!("groups are nested deeper than {MAX_DEPTH}")));
        }
        let mut children = group.groups().map_err(|e| self.file.bad(path, e))?;
        children.sort_by(|a, b| natural(a).cmp(&natural(b)));
        for key in children {
            self.file.visit(path)?;
            let child = group.group(&key).map_err(|e| self.file.bad(path, e))?;
            let below = if path.is_empty() { key.clone() } else { format!("{path}/{key}") };
            if key == "vars" {
                self.variables(&child, path, owner)?;
            } else if CONTAINERS.contains(&key.as_str()) {
                self.container(&child, &below, depth + 1)?;
            } else if !(key.starts_with("seed_generator")
                || path.is_empty() && NOT_WEIGHTS.contains(&key.as_str()))
            {
                // A part of a layer, such as the query projection of an attention, or an attribute of a subclassed model.
                let name = self.name(&child, &below, &key)?;
                let owner = owner.map_or(name.clone(), |o| format!("{o}/{name}"));
                self.object(&child, &below, Some(&owner), depth + 1)?;
            }
        }
        Ok(())
    }

    fn container(&mut self, group: &Group, path: &str, depth: usize) -> Result<()> {
        let mut layers = group.groups().map_err(|e| self.file.bad(path, e))?;
        layers.sort_by(|a, b| natural(a).cmp(&natural(b)));
        for key in layers {
            self.file.visit(path)?;
            let below = format!("{path}/{key}");
            let layer = group.group(&key).map_err(|e| self.file.bad(path, e))?;
            let name = self.name(&layer, &below, &key)?;
            self.object(&layer, &below, Some(&name), depth + 1)?;
        }
        Ok(())
    }

    /// The name of a layer: the configuration's, or the one beside its variables, or its key.
    fn name(&self, layer: &Group, path: &str, key: &str) -> Result<String> {
        if let Some(layer) = self.config.0.get(path) {
            return Ok(layer.name.clone());
        }
        let Ok(vars) = layer.group("vars") else { return Ok(key.to_owned()) };
        let stated = self.file.strings(&vars, path, "name")?.and_then(|s| s.into_iter().next());
        Ok(stated.unwrap_or_else(|| key.to_owned()))
    }

    fn variables(&mut self, vars: &Group, path: &str, owner: Option<&str>) -> Result<()> {
        let key = path.rsplit('/').next().unwrap_or(path);
        let layer = self.config.0.get(path);
        let class = layer.map_or_else(|| class_of(key), |l| l.class.as_str());
        let mut numbers = vars.datasets().map_err(|e| self.file.bad(path, e))?;
        numbers.sort_by(|a, b| natural(a).cmp(&natural(b)));
        let names = variable_names(class, numbers.len(), layer.map(|l| l.affine));
        for (i, number) in numbers.iter().enumerate() {
            let at = format!("{path}/vars/{number}");
            let dataset = vars.dataset(number).map_err(|e| self.file.bad(&at, e))?;
            let tensor = self.file.tensor(&dataset, &at)?;
            let variable = names.get(i).copied().unwrap_or(number);
            let name = owner.map_or_else(|| variable.to_owned(), |o| format!("{o}/{variable}"));
            let whole = format!("{path}/{variable}");
            self.found.push((layer.map_or(usize::MAX, |l| l.place), name, whole, tensor));
        }
        Ok(())
    }
}

/// The class in a key such as `conv2d_3`.
fn class_of(key: &str) -> &str {
    match key.rsplit_once('_') {
        Some((class, n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => class,
        _ => key,
    }
}

/// What the variables of a layer of this class are, in their order; `affine` says whether a norm has scale and offset.
fn variable_names(class: &str, count: usize, affine: Option<(bool, bool)>) -> Vec<&'static str> {
    let norm = |statistics: &[&'static str]| {
        // Without a configuration, one missing of the two cannot be told from the other.
        let known = affine.unwrap_or((true, true));
        let (scale, center) = match (count.checked_sub(statistics.len()), affine) {
            (Some(0), None) => (false, false),
            (Some(1), None) => return Vec::new(),
            _ => known,
        };
        let affine = [("gamma", scale), ("beta", center)];
        affine.into_iter().filter(|(_, has)| *has).map(|(n, _)| n).chain(statistics.iter().copied()).collect()
    };
    let names: Vec<&str> = match class {
        "batch_normalization" => norm(&["moving_mean", "moving_variance"]),
        "layer_normalization" | "group_normalization" => norm(&[]),
        "embedding" => vec!["embeddings"],
        "p_re_lu" => vec!["alpha"],
        "normalization" => vec!["mean", "variance", "count"],
        _ if class.starts_with("separable_conv") => vec!["depthwise_kernel", "pointwise_kernel", "bias"],
        _ if class == "dense" || class.starts_with("conv") || class.starts_with("depthwise_conv") => {
            vec!["kernel", "bias"]
        }
        _ => Vec::new(),
    };
    if count <= names.len() { names } else { Vec::new() }
}

/// Sorts `conv2d_2` before `conv2d_10`, and `conv2d` before both.
fn natural(key: &str) -> (&str, usize) {
    match key.rsplit_once('_') {
        Some((stem, n)) if !n.is_empty() => n.parse().map_or((key, 0), |n| (stem, n)),
        _ => key.parse().map_or((key, 0), |n| ("", n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_classes() {
        let pairs = [
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("BatchNormalization", "batch_normalization"),
            ("ReLU", "re_lu"),
            ("PReLU", "p_re_lu"),
            ("Conv2DTranspose", "conv2d_transpose"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ];
        for (class, key) in pairs {
            assert_eq!(snake_case(class), key);
        }
        assert_eq!(
            (class_of("conv2d_12"), class_of("dense"), class_of("zero_padding2d")),
            ("conv2d", "dense", "zero_padding2d")
        );
        assert!(natural("conv2d") < natural("conv2d_2") && natural("conv2d_2") < natural("conv2d_10"));
    }

    #[test]
    fn a_norm_without_scale_needs_the_configuration() {
        assert_eq!(variable_names("batch_normalization", 4, None)[0], "gamma");
        assert_eq!(variable_names("batch_normalization", 2, None), ["moving_mean", "moving_variance"]);
        assert!(variable_names("batch_normalization", 3, None).is_empty());
        let without_scale = variable_names("batch_normalization", 3, Some((false, true)));
        assert_eq!(without_scale, ["beta", "moving_mean", "moving_variance"]);
    }
}
