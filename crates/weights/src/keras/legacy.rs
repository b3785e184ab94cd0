//! HDF5 files of the layout of Keras 2: whole models (`model.save("m.h5")`) and weights alone (`save_weights("w.h5")`).
//! Keras 3 still writes it under the name "legacy h5".
//!
//! The `:0` of TensorFlow, a scope that a second model in one session made unique (`conv1_1/kernel`), and the layer name
//! that the file repeats are gone. Names of the first releases (`block1_conv1_W_1`) become today's. The order is that of
//! the layers, and within one of its variables.

use std::collections::HashSet;
use std::path::Path;

use hdf5_pure::Group;
use serde_json::Value;

use crate::hdf5::{Hdf5, MAX_DEPTH};
use crate::mmap;
use crate::{Error, Format, NamedTensors, Result};

const FORMAT: Format = Format::KerasHdf5;

/// Reads the weights of a Keras 2 HDF5 file. Optimizer state is left out.
///
/// The metadata has `model_config` (JSON: the network, as Keras writes it) and `keras_version` where the file has them.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be opened, is no sound HDF5 file, or not one that Keras 2 lays out so.
pub fn read_hdf5(path: impl AsRef<Path>) -> Result<NamedTensors> {
    let path = path.as_ref();
    let read = || from_hdf5(Hdf5::map(mmap::map(path)?, FORMAT)?);
    read().map_err(|e| e.at(path))
}

/// Reads a Keras 2 HDF5 file that is in memory.
///
/// # Errors
/// As [`read_hdf5`], without a file name.
pub fn read_hdf5_bytes(bytes: &[u8]) -> Result<NamedTensors> {
    from_hdf5(Hdf5::bytes(bytes, FORMAT)?)
}

fn from_hdf5(mut file: Hdf5) -> Result<NamedTensors> {
    let mut out = NamedTensors::new();
    let root = file.root();
    for key in ["model_config", "keras_version"] {
        if let Some(text) = file.strings(&root, "/", key)?.and_then(|s| s.into_iter().next()) {
            out.metadata.insert(key.into(), text);
        }
    }
    let models = out.metadata.get("model_config").map(|c| nested_models(c)).unwrap_or_default();

    // A whole model has its weights one group down.
    let (top, at) = match root.group("model_weights") {
        Ok(group) => (group, "model_weights"),
        Err(_) => (root, ""),
    };
    let layers = file.strings(&top, at, "layer_names")?.ok_or_else(|| {
        Error::malformed(
            FORMAT,
            "it has no `layer_names`, so it is not a Keras 2 weight file (a `.weights.h5`?)",
        )
    })?;
    if let Some(version) = file.strings(&top, at, "keras_version")?.and_then(|s| s.into_iter().next()) {
        out.metadata.insert("keras_version".into(), version);
    }
    // Variables that belong to no layer.
    let extra = "top_level_model_weights".to_owned();
    for layer in layers.iter().chain([&extra]) {
        let Ok(group) = top.group(layer) else {
            if *layer == extra {
                continue;
            }
            return Err(Error::malformed(FORMAT, format!("layer `{layer}` is listed but not there")));
        };
        let at = format!("{at}/{layer}");
        read_layer(&mut file, &group, &at, layer, models.contains(layer), &mut out)?;
    }
    Ok(out)
}

fn read_layer(
    file: &mut Hdf5,
    group: &Group,
    at: &str,
    layer: &str,
    is_model: bool,
    out: &mut NamedTensors,
) -> Result<()> {
    let paths = match file.strings(group, at, "weight_names")? {
        Some(paths) => paths,
        None => {
            let mut paths = Vec::new();
            walk(file, group, at, "", MAX_DEPTH, &mut paths)?;
            paths
        }
    };
    // The weights of one layer share their first scope; those of a model used as a layer do not.
    let scopes: HashSet<&str> =
        paths.iter().filter_map(|p| p.split_once('/')).map(|(scope, _)| scope).collect();
    let is_model = is_model || scopes.len() > 1;
    for path in &paths {
        let dataset = group.dataset(path).map_err(|e| file.bad(&format!("{at}/{path}"), e))?;
        let tensor = file.tensor(&dataset, &format!("{at}/{path}"))?;
        let name = name(layer, path, is_model);
        let name = if out.contains(&name) { format!("{layer}/{}", plain(path)) } else { name };
        if out.insert(name, tensor).is_some() {
            return Err(file.bad(&format!("{at}/{path}"), "the file has two arrays of this name"));
        }
    }
    Ok(())
}

/// The datasets below `group`, for files without `weight_names`.
fn walk(
    file: &mut Hdf5,
    group: &Group,
    at: &str,
    prefix: &str,
    depth: usize,
    out: &mut Vec<String>,
) -> Result<()> {
    if depth == 0 {
        return Err(file.bad(at, format!("groups are nested deeper than {MAX_DEPTH}")));
    }
    for name in group.datasets().map_err(|e| file.bad(at, e))? {
        file.visit(at)?;
        out.push(format!("{prefix}{name}"));
    }
    for name in group.groups().map_err(|e| file.bad(at, e))? {
        file.visit(at)?;
        let child = group.group(&name).map_err(|e| file.bad(at, e))?;
        walk(file, &child, &format!("{at}/{name}"), &format!("{prefix}{name}/"), depth - 1, out)?;
    }
    Ok(())
}

/// The `<layer>/<variable>` name of the array at `path` in the group of `layer`.
fn name(layer: &str, path: &str, is_model: bool) -> String {
    let path = plain(path);
    match path.rsplit_once('/') {
        Some((scopes, variable)) if is_model => {
            let owner = scopes.rsplit('/').next().unwrap_or(scopes);
            format!("{owner}/{variable}")
        }
        // The group's name is the layer's; a scope repeats it, at times with a number that makes it unique.
        Some(_) => format!("{layer}/{}", path.split_once('/').map_or(path, |(_, rest)| rest)),
        None => format!("{layer}/{}", early_variable(layer, path)),
    }
}

/// A path without TensorFlow's output number.
fn plain(path: &str) -> &str {
    path.rsplit_once(':').map_or(path, |(name, _)| name)
}

/// Today's name of a variable as the first releases wrote it: `block1_conv1_W_1` is `kernel`.
fn early_variable<'a>(layer: &str, path: &'a str) -> &'a str {
    let rest = path.strip_prefix(layer).and_then(|p| p.strip_prefix('_')).unwrap_or(path);
    let stem = match rest.rsplit_once('_') {
        Some((stem, n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => rest,
    };
    match stem {
        "W" => "kernel",
        "b" => "bias",
        "running_mean" => "moving_mean",
        // It held the variance in spite of its name.
        "running_std" => "moving_variance",
        other => other,
    }
}

/// The names of the layers that are models themselves, from `model_config`.
fn nested_models(config: &str) -> HashSet<String> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    // The list lies under `config.layers`; the Sequential models of Keras 2.0 to 2.2 had it at `config`.
    let layers = config.pointer("/config/layers").or_else(|| config.get("config")).and_then(Value::as_array);
    let is_model =
        |l: &&Value| matches!(l["class_name"].as_str(), Some("Functional" | "Model" | "Sequential"));
    let name = |l: &Value| {
        l.pointer("/config/name").or_else(|| l.get("name")).and_then(Value::as_str).map(str::to_owned)
    };
    layers.into_iter().flatten().filter(is_model).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_layer_and_variable() {
        let plain_layer = |path| name("conv1", path, false);
        assert_eq!(plain_layer("conv1/kernel:0"), "conv1/kernel");
        assert_eq!(plain_layer("conv1_3/kernel:0"), "conv1/kernel");
        assert_eq!(plain_layer("conv1_W_1:0"), "conv1/kernel");
        assert_eq!(plain_layer("conv1_running_std_1:0"), "conv1/moving_variance");
        assert_eq!(plain_layer("conv1/query/bias:0"), "conv1/query/bias");
        assert_eq!(name("mobilenetv2_1.00_160", "block_1_expand/kernel:0", true), "block_1_expand/kernel");
        assert_eq!(name("outer", "outer/Conv_1_bn/gamma", true), "Conv_1_bn/gamma");
    }

    #[test]
    fn models_inside_models_are_found_in_old_and_new_configs() {
        let new = r#"{"class_name": "Functional", "config": {"layers": [
            {"class_name": "Functional", "config": {"name": "mobilenetv2"}},
            {"class_name": "Dense", "config": {"name": "dense"}}]}}"#;
        let old = r#"{"class_name": "Sequential", "config": [{"class_name": "Model", "config": {"name": "vgg16"}}]}"#;
        assert_eq!(nested_models(new), HashSet::from(["mobilenetv2".to_owned()]));
        assert_eq!(nested_models(old), HashSet::from(["vgg16".to_owned()]));
        assert!(nested_models("not json").is_empty());
    }
}
