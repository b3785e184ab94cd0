//! The parameters of Lasagne's recipes, which have an order and no names, as torchvision's.
//!
//! `lasagne.layers.get_all_param_values` lists layer by layer, each before what needs it and a sum's first input first: in
//! a block of the ResNet50 recipe the shortcut (`branch1`) comes before `branch2a`. A convolution has `W` and `b`, a batch
//! normalisation `beta`, `gamma`, `mean`, `inv_std`. Dense weights turn from `[in, out]` to `[out, in]`; `inv_std` is
//! `1 / sqrt(var + 1e-4)` and becomes the variance. Convolutions are OIHW already. The recipes were converted from Caffe:
//! their pictures are blue, green, red in 0…255 less a mean, and their filters are not turned (`flip_filters=False`).
//! A network made with Lasagne's default, `flip_filters=True`, convolves: its filters must be turned, see [`flip_filters`].

use defrost_tensor::HostTensor;

use crate::{Arch, Geometry, MeanImage, Preprocess};

/// The epsilon of Lasagne's `BatchNormLayer`.
const EPSILON: f64 = 1e-4;

/// Why an array is not the parameter that its place says.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LasagneError {
    /// No recipe for this network.
    #[error("no order of Lasagne's parameters is known for `{arch}`; it is for resnet50 and vgg16")]
    UnknownModel {
        /// The network.
        arch: Arch,
    },
    /// An array of other axes than its parameter.
    #[error("`arr_{index}` of shape {shape:?} stands where Lasagne has `{name}`")]
    Shape {
        /// The array's place.
        index: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// The parameter in torchvision's names.
        name: String,
    },
}

/// What becomes of an array.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Keep,
    Filters,
    Transpose,
    /// From inverse standard deviations to variances.
    Variance,
}

/// The place of an array in the list, where its name is `arr_` and a number.
pub fn index(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("arr_")?;
    let index = digits.parse::<usize>().ok()?;
    (index.to_string() == digits).then_some(index)
}

/// Whether these are the names of such a list, as `numpy.savez` and our reader of pickles give them.
pub fn is_list<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut any = false;
    names.into_iter().all(|name| {
        any |= index(name).is_some();
        index(name).is_some() || is_mean(name)
    }) && any
}

/// Whether this is the mean that a recipe keeps beside its parameters.
pub fn is_mean(name: &str) -> bool {
    matches!(name, "mean value" | "mean_value" | "mean image" | "mean_image")
}

/// `tensors` of a recipe of `arch` under torchvision's names and in its layouts, in the list's order.
///
/// The mean is left out: see [`preprocess`]. Arrays beyond the network's last parameter keep their names.
///
/// # Errors
/// [`LasagneError`]: no recipe of this network, or an array of other axes than its place has.
pub fn to_torchvision(
    arch: Arch,
    tensors: impl IntoIterator<Item = (String, HostTensor)>,
) -> Result<Vec<(String, HostTensor)>, LasagneError> {
    let order = order(arch).ok_or(LasagneError::UnknownModel { arch })?;
    let mut tensors: Vec<_> = tensors.into_iter().filter(|(name, _)| !is_mean(name)).collect();
    tensors.sort_by_key(|(name, _)| index(name).unwrap_or(usize::MAX));
    let rename = |(lasagne, tensor): (String, HostTensor)| {
        let Some((at, (name, change))) = index(&lasagne).and_then(|i| Some((i, order.get(i)?))) else {
            return Ok((lasagne, tensor));
        };
        let axes = match change {
            Change::Keep | Change::Variance => 1,
            Change::Transpose => 2,
            Change::Filters => 4,
        };
        if tensor.shape().len() != axes {
            let (shape, name) = (tensor.shape().to_vec(), name.clone());
            return Err(LasagneError::Shape { index: at, shape, name });
        }
        Ok((name.clone(), change.apply(tensor)))
    };
    tensors.into_iter().map(rename).collect()
}

/// Filters `[out, in, rows, columns]` turned by half a circle: what a network made with `flip_filters=True` convolves with,
/// as what others correlate with. A tensor of other axes is returned as it is.
pub fn flip_filters(mut tensor: HostTensor) -> HostTensor {
    if let &[_, _, rows, columns] = tensor.shape() {
        tensor.data_mut().chunks_exact_mut((rows * columns).max(1)).for_each(<[f32]>::reverse);
    }
    tensor
}

/// How pictures are prepared for a recipe whose file has this mean, `[3]` or `[3, rows, columns]` in blue, green, red: the
/// shorter side 256, cropped to 224, less the mean. A mean image is taken away pixel by pixel, as the recipes' notebooks
/// do (Lasagne/Recipes, examples/ImageNet Pretrained Network (VGG_S).ipynb: `x - MEAN_IMAGE` after the crop).
pub fn preprocess(mean: Option<&HostTensor>) -> Preprocess {
    let caffe = Preprocess::usual(Arch::Vgg16, Geometry::Lasagne);
    let Some(mean) = mean.filter(|m| m.shape().first() == Some(&3) && m.is_finite()) else { return caffe };
    let channel = |part: &[f32]| part.iter().map(|&v| f64::from(v)).sum::<f64>() / part.len() as f64 / 255.0;
    let channels = mean.data().chunks_exact(mean.len() / 3).map(channel).collect();
    let mean_image = match *mean.shape() {
        [c, rows, columns] if rows * columns > 1 => MeanImage::new([c, rows, columns], mean.data()),
        _ => None,
    };
    Preprocess { mean: channels, mean_image, ..caffe }
}

impl Change {
    fn apply(self, mut tensor: HostTensor) -> HostTensor {
        match self {
            Self::Keep | Self::Filters => tensor,
            Self::Transpose => tensor.permute(&[1, 0]),
            Self::Variance => {
                for value in tensor.data_mut() {
                    let inverse = f64::from(*value);
                    // Rounding may take a variance of nothing below it.
                    *value = (1.0 / (inverse * inverse) - EPSILON).max(0.0) as f32;
                }
                tensor
            }
        }
    }
}

/// Every parameter in Lasagne's order.
fn order(arch: Arch) -> Option<Vec<(String, Change)>> {
    let mut out = Vec::new();
    match arch {
        Arch::Vgg16 => {
            for conv in [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28] {
                out.push((format!("features.{conv}.weight"), Change::Filters));
                out.push((format!("features.{conv}.bias"), Change::Keep));
            }
            for dense in [0, 3, 6] {
                out.push((format!("classifier.{dense}.weight"), Change::Transpose));
                out.push((format!("classifier.{dense}.bias"), Change::Keep));
            }
        }
        Arch::Resnet50 => {
            out.push(("conv1.weight".into(), Change::Filters));
            out.push(("conv1.bias".into(), Change::Keep));
            norm(&mut out, "bn1");
            for (layer, blocks) in (1..).zip([3, 4, 6, 3]) {
                for block in 0..blocks {
                    let at = format!("layer{layer}.{block}");
                    let shortcut =
                        (block == 0).then(|| ("downsample.0".to_owned(), "downsample.1".to_owned()));
                    let main = (1..=3).map(|i| (format!("conv{i}"), format!("bn{i}")));
                    for (conv, bn) in shortcut.into_iter().chain(main) {
                        out.push((format!("{at}.{conv}.weight"), Change::Filters));
                        norm(&mut out, &format!("{at}.{bn}"));
                    }
                }
            }
            out.push(("fc.weight".into(), Change::Transpose));
            out.push(("fc.bias".into(), Change::Keep));
        }
        _ => return None,
    }
    Some(out)
}

fn norm(out: &mut Vec<(String, Change)>, name: &str) {
    for leaf in ["bias", "weight", "running_mean"] {
        out.push((format!("{name}.{leaf}"), Change::Keep));
    }
    out.push((format!("{name}.running_var"), Change::Variance));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadLoading, ModelSpec, match_weights};

    /// A recipe's arrays: shapes as Lasagne has them, values that tell the array.
    fn recipe(arch: Arch, classes: usize) -> Vec<(String, HostTensor)> {
        let spec = ModelSpec::new(arch, classes).with_geometry(Geometry::Lasagne);
        let graph = spec.build().unwrap();
        let arrays = order(arch).unwrap().into_iter().enumerate().map(|(i, (name, change))| {
            let mut shape =
                graph.param(graph.find_param(&name).unwrap_or_else(|| panic!("{name}"))).shape.clone();
            if change == Change::Transpose {
                shape.reverse();
            }
            (format!("arr_{i}"), HostTensor::full(shape, (i + 1) as f32))
        });
        arrays.collect()
    }

    #[test]
    fn a_recipe_has_every_parameter_once() {
        for (arch, arrays) in [(Arch::Vgg16, 32), (Arch::Resnet50, 268)] {
            let mut list = recipe(arch, 7);
            assert_eq!(list.len(), arrays);
            list.reverse();
            list.push(("mean value".into(), HostTensor::zeros([3])));
            assert!(is_list(list.iter().map(|(n, _)| n.as_str())));
            let graph = ModelSpec::new(arch, 7).with_geometry(Geometry::Lasagne).build().unwrap();
            let named = to_torchvision(arch, list).unwrap();
            let shapes = named.iter().map(|(n, t)| (n.as_str(), t.shape()));
            let report = match_weights(&graph, shapes, HeadLoading::Required);
            assert!(report.is_complete() && report.matched.len() == arrays, "{report}");
        }
    }

    #[test]
    fn the_shortcut_comes_first_and_beta_before_gamma() {
        let named = to_torchvision(Arch::Resnet50, recipe(Arch::Resnet50, 1000)).unwrap();
        let names: Vec<_> = named.iter().map(|(n, _)| n.as_str()).collect();
        let want =
            ["conv1.weight", "conv1.bias", "bn1.bias", "bn1.weight", "bn1.running_mean", "bn1.running_var"];
        assert_eq!(names[..6], want);
        assert_eq!(names[6..8], ["layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias"]);
        assert_eq!(names[11], "layer1.0.conv1.weight");
        assert_eq!(names[26], "layer1.1.conv1.weight");
    }

    #[test]
    fn values_turn_as_the_documentation_says() {
        let one = |arch, i: usize, shape: &[usize], data: &[f32]| {
            let tensor = HostTensor::new(shape, data.to_vec()).unwrap();
            to_torchvision(arch, [(format!("arr_{i}"), tensor)]).unwrap().remove(0).1.into_data()
        };
        let var = one(Arch::Resnet50, 5, &[2], &[2.0, 100.0]);
        assert!((var[0] - (0.25 - 1e-4)).abs() < 1e-7 && var[1] == 0.0, "{var:?}");
        let dense = one(Arch::Vgg16, 30, &[2, 3], &[1., 2., 3., 4., 5., 6.]);
        assert_eq!(dense, [1., 4., 2., 5., 3., 6.]);
        let filters = [1., 2., 3., 4., 5., 6., 7., 8.];
        assert_eq!(one(Arch::Vgg16, 0, &[1, 2, 2, 2], &filters), filters);
        let turned = flip_filters(HostTensor::new([1, 2, 2, 2], filters.to_vec()).unwrap());
        assert_eq!(turned.data(), [4., 3., 2., 1., 8., 7., 6., 5.]);
        assert_eq!(flip_filters(HostTensor::vector(vec![1., 2.])).data(), [1., 2.]);
        let error = to_torchvision(Arch::Vgg16, [("arr_1".into(), HostTensor::zeros([2, 2]))]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "`arr_1` of shape [2, 2] stands where Lasagne has `features.0.bias`"
        );
        assert!(to_torchvision(Arch::Resnet18, []).is_err());
    }

    #[test]
    fn the_mean_is_the_files_own() {
        let mean = HostTensor::vector(vec![102.0, 51.0, 25.5]);
        let p = preprocess(Some(&mean));
        assert_eq!((p.mean, p.reversed, p.resize, p.crop), (vec![0.4, 0.2, 0.1], true, 256, 224));
        let image = HostTensor::new([3, 1, 2], vec![0., 51., 51., 51., 255., 255.]).unwrap();
        let p = preprocess(Some(&image));
        assert_eq!((p.mean, p.mean_image.unwrap().values()), (vec![0.1, 0.2, 1.0], image.data()));
        assert_eq!(preprocess(None), Preprocess::caffe().with_size(256, 224));
        assert!(!is_list(["arr_0", "conv1.weight"]) && !is_list(["mean value"]) && !is_list(["arr_01"]));
    }
}
