//! Whose names the tensors of a file have, and what follows from it: the zoo's names, the geometry, the pictures.

use std::fmt;

use defrost_tensor::HostTensor;

use crate::{Arch, Geometry, Head, Interpolation, Preprocess, fastai, keras, lasagne, timm};

/// Whose names the tensors of a file have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Naming {
    /// torchvision's, which are the zoo's (EfficientNet-Lite0: its PyTorch package's). timm's ResNets have them too.
    Torch,
    /// timm's, see [`timm`].
    Timm,
    /// fastai's numbers, see [`fastai`].
    Fastai,
    /// `<layer>/<variable>`, see [`keras`].
    Keras,
    /// No names, a list: see [`lasagne`].
    Lasagne,
}

/// Tensors under the zoo's names and in its layouts, and what their own names say of them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Named {
    /// Whose names they had.
    pub naming: Naming,
    /// The tensors, in the file's order.
    pub tensors: Vec<(String, HostTensor)>,
    /// Whose arithmetic the weights were trained in, as far as the names tell.
    pub geometry: Geometry,
    /// How pictures are prepared for weights of this origin.
    pub preprocess: Preprocess,
    /// A head other than the published one.
    pub head: Option<Head>,
}

/// Why tensors cannot be given the zoo's names.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NamingError {
    /// Keras' names.
    #[error(transparent)]
    Keras(#[from] keras::KerasError),
    /// Lasagne's order.
    #[error(transparent)]
    Lasagne(#[from] lasagne::LasagneError),
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Torch => "torchvision",
            Self::Timm => "timm",
            Self::Fastai => "fastai",
            Self::Keras => "Keras",
            Self::Lasagne => "Lasagne",
        })
    }
}

impl Naming {
    /// Whose names these are; torchvision's where they are nobody else's.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let is_timm = |name: &str| {
            ["conv_stem.", "conv_head.", "blocks.", "pre_logits.", "head.fc."]
                .iter()
                .any(|p| name.starts_with(p))
        };
        if names.clone().into_iter().any(|name| name.contains('/')) {
            Self::Keras
        } else if lasagne::is_list(names.clone()) {
            Self::Lasagne
        } else if fastai::is_fastai(names.clone()) {
            Self::Fastai
        } else if names.into_iter().any(is_timm) {
            Self::Timm
        } else {
            Self::Torch
        }
    }
}

/// Gives `tensors` of a network `arch` the zoo's names and layouts, whoever wrote them. Where all names begin with
/// `module.`, `_orig_mod.` or `model.` (PyTorch's wrappers), that is taken off.
///
/// A tensor that the network does not have keeps
/// its name, so that loading can report it.
///
/// # Errors
/// [`NamingError`]: Keras' or Lasagne's tensors that are not those of this network.
pub fn name(arch: Arch, tensors: Vec<(String, HostTensor)>) -> Result<Named, NamingError> {
    let tensors = crate::load::without_prefix(tensors);
    let naming = Naming::of(tensors.iter().map(|(name, _)| name.as_str()));
    let geometry = match naming {
        Naming::Torch => arch.default_geometry(),
        Naming::Timm | Naming::Fastai => Geometry::Torch,
        Naming::Keras => Geometry::Keras,
        Naming::Lasagne => Geometry::Lasagne,
    };
    let mut preprocess = Preprocess::usual(arch, geometry);
    let mut head = None;
    let tensors = match naming {
        Naming::Torch => tensors,
        Naming::Timm => {
            // Pictures for timm's EfficientNets, of which MobileNetV2 is one, are resized by the cubic rule.
            if arch != Arch::Vgg16 {
                preprocess = preprocess.with_interpolation(Interpolation::Bicubic);
            }
            timm::to_torchvision(arch, tensors)
        }
        Naming::Fastai => {
            // `Resize` crops the shorter side's square for validation; `vision_learner` normalises by ImageNet.
            preprocess = preprocess.with_size(224, 224);
            let shapes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()));
            head = fastai::head(shapes, arch.features());
            fastai::to_torchvision(arch, tensors)
        }
        Naming::Keras => {
            let mut tensors = keras::to_torchvision(arch.name(), tensors)?;
            if let Some((own, rows)) = keras::own_head(arch, &mut tensors) {
                // All of these networks halve an image five times.
                if let Some(rows) = rows {
                    preprocess = preprocess.with_size(32 * rows, 32 * rows);
                }
                head = Some(own);
            } else if let Some((own, rows)) = dense_on_a_map(arch, &tensors, 0.0) {
                preprocess = preprocess.with_size(32 * rows, 32 * rows);
                head = Some(own);
            }
            tensors
        }
        Naming::Lasagne => {
            let mean = tensors.iter().find(|(name, _)| lasagne::is_mean(name));
            preprocess = lasagne::preprocess(mean.map(|(_, tensor)| tensor));
            let tensors = lasagne::to_torchvision(arch, tensors)?;
            head = dense_on_a_map(arch, &tensors, 0.5).map(|(own, _)| own);
            tensors
        }
    };
    Ok(Named { naming, tensors, geometry, preprocess, head })
}

/// VGG16's three dense layers where they were trained on maps of another size than 7×7, which they read as they are:
/// torchvision's network pools any map to 7×7. With the head come the rows of its map.
fn dense_on_a_map(arch: Arch, tensors: &[(String, HostTensor)], dropout: f32) -> Option<(Head, usize)> {
    let shape = |place: usize| {
        let weight = tensors.iter().find(|(name, _)| *name == format!("classifier.{place}.weight"))?;
        <[usize; 2]>::try_from(weight.1.shape()).ok()
    };
    let ([first, inputs], [second, _]) = (shape(0)?, shape(3)?);
    let rows = (inputs / arch.features()).isqrt();
    let other = arch == Arch::Vgg16 && rows != 7 && rows > 0 && rows * rows * arch.features() == inputs;
    other.then(|| (Head::Flattened { hidden: vec![first, second], dropout }, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadLoading, LoadOptions, ModelSpec, load};

    #[test]
    fn names_tell_whose_they_are() {
        for (names, naming) in [
            (&["conv1.weight", "fc.bias"][..], Naming::Torch),
            (&["_conv_stem.weight", "_blocks.0._bn1.bias"], Naming::Torch),
            (&["conv_stem.weight", "blocks.0.0.conv_dw.weight"], Naming::Timm),
            (&["features.0.weight", "pre_logits.fc1.weight"], Naming::Timm),
            (&["0.0.weight", "0.4.0.conv1.weight", "1.8.weight"], Naming::Fastai),
            (&["block1_conv1/kernel", "predictions/bias"], Naming::Keras),
            (&["arr_0", "arr_1", "mean value"], Naming::Lasagne),
        ] {
            assert_eq!(Naming::of(names.iter().copied()), naming, "{names:?}");
        }
    }

    #[test]
    fn a_file_of_fastai_is_loaded_with_its_head() {
        let head = Head::Fastai { hidden: vec![512], dropout: 0.5, concat_pool: true };
        let spec = ModelSpec::new(Arch::Resnet18, 37).with_image_size(64).with_head(head.clone());
        let graph = spec.build().unwrap();
        let children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"];
        let tensors = graph.params().iter().zip(1..).map(|(p, i)| {
            let (first, rest) = p.name.split_once('.').unwrap();
            let name = match children.iter().position(|c| *c == first) {
                Some(child) => format!("module.0.{child}.{rest}"),
                None => format!("module.1.{rest}"),
            };
            (name, HostTensor::full(p.shape.clone(), i as f32))
        });
        let named = name(Arch::Resnet18, tensors.collect()).unwrap();
        assert_eq!((named.naming, named.head.as_ref()), (Naming::Fastai, Some(&head)));
        assert_eq!((named.preprocess.resize, named.preprocess.crop), (224, 224));
        let options = LoadOptions::default().with_head(HeadLoading::Required);
        let (store, report) = load(&graph, named.tensors, &options).unwrap();
        assert!(report.is_complete(), "{report}");
        let last = graph.params().last().unwrap();
        assert_eq!((last.name.as_str(), &last.shape[..]), ("fc.8.weight", &[37, 512][..]));
        assert_eq!(store.get("fc.8.weight").unwrap().data()[0], graph.params().len() as f32);
    }

    #[test]
    fn preprocessing_and_geometry_follow_the_names() {
        let one = |arch, name: &str| super::name(arch, vec![(name.into(), HostTensor::zeros([1]))]).unwrap();
        let keras = one(Arch::MobilenetV2, "Conv1_bn/beta");
        assert_eq!((keras.geometry, keras.preprocess), (Geometry::Keras, Preprocess::tf()));
        assert_eq!(one(Arch::Resnet50, "bn_conv1/beta").preprocess, Preprocess::caffe());
        let lite = one(Arch::EfficientnetLite0, "_bn0.bias");
        assert_eq!((lite.geometry, lite.preprocess), (Geometry::Tensorflow, Preprocess::lite()));
        let timm = one(Arch::EfficientnetLite0, "conv_stem.weight");
        assert_eq!((timm.geometry, timm.preprocess.interpolation), (Geometry::Torch, Interpolation::Bicubic));
        let recipe = vec![
            ("arr_1".to_owned(), HostTensor::zeros([64])),
            ("mean value".to_owned(), HostTensor::vector(vec![255.0; 3])),
        ];
        let recipe = super::name(Arch::Vgg16, recipe).unwrap();
        assert_eq!((recipe.geometry, recipe.tensors[0].0.as_str()), (Geometry::Lasagne, "features.0.bias"));
        assert_eq!((recipe.preprocess.mean, recipe.preprocess.reversed), (vec![1.0; 3], true));
        assert!(super::name(Arch::Resnet18, vec![("arr_0".into(), HostTensor::zeros([1]))]).is_err());
    }
}
