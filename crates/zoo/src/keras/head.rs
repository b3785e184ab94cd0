//! Heads that users of Keras put on the published networks.

use defrost_tensor::HostTensor;

use super::spatial;
use crate::{Arch, Head, ModelSpec};

/// Gives the dense layers that a user of Keras put on the features (`dense/kernel`, `dense_1/kernel`, …) the names of the
/// head they make, and returns that head: the published classifier for one layer behind global pooling, else
/// [`Head::Pooled`] or, where the first layer reads a whole feature map, [`Head::Flattened`]. Such a map has the rows and
/// columns that are returned beside it, and its inputs turn from H, W, C to C, H, W order.
///
/// The layers follow one another in the order of `tensors`, as Keras writes them. `None`, and nothing is changed, where the
/// published classifier is there, where there is no dense layer, and where they do not fit one another.
pub fn own_head(arch: Arch, tensors: &mut [(String, HostTensor)]) -> Option<(Head, Option<usize>)> {
    let published = ModelSpec::new(arch, 1).build().ok()?.params().last()?.name.clone();
    if tensors.iter().any(|(name, _)| *name == published) {
        return None;
    }
    let kernels: Vec<usize> = (0..tensors.len())
        .filter(|&i| tensors[i].0.ends_with("/kernel") && tensors[i].1.shape().len() == 2)
        .collect();
    let biases: Vec<usize> = kernels
        .iter()
        .map(|&i| {
            let bias = format!("{}/bias", tensors[i].0.strip_suffix("/kernel")?);
            tensors.iter().position(|(name, _)| *name == bias)
        })
        .collect::<Option<_>>()?;
    let sizes: Vec<[usize; 2]> =
        kernels.iter().map(|&i| [tensors[i].1.shape()[0], tensors[i].1.shape()[1]]).collect();
    let chained = sizes.windows(2).all(|pair| pair[0][1] == pair[1][0]);
    let (&[inputs, _], features) = (sizes.first()?, arch.features());
    let side = (inputs / features).isqrt();
    if !chained || side == 0 || side * side * features != inputs {
        return None;
    }
    let hidden: Vec<usize> = sizes[..sizes.len() - 1].iter().map(|[_, out]| *out).collect();
    let root = arch.head_root();
    let (head, rows) = match side {
        1 if hidden.is_empty() && arch != Arch::Vgg16 => (Head::Original, None),
        1 => (Head::Pooled { hidden, dropout: 0.0, batch_norm: false }, None),
        _ => (Head::Flattened { hidden, dropout: 0.0 }, Some(side)),
    };
    for (i, (&kernel, &bias)) in kernels.iter().zip(&biases).enumerate() {
        let module = match head {
            Head::Original => published.strip_suffix(".bias")?.to_owned(),
            // Sequential(k × (Linear, ReLU, Dropout), Linear)
            _ => format!("{root}.{}", 3 * i),
        };
        let weight = tensors[kernel].1.clone();
        let weight = match rows {
            Some(side) if i == 0 => spatial(weight, side, features)?,
            _ => weight.permute(&[1, 0]),
        };
        tensors[kernel] = (format!("{module}.weight"), weight);
        tensors[bias].0 = format!("{module}.bias");
    }
    Some((head, rows))
}

/// Rows of the images that the model of this `model_config` takes, where it says so and they are square.
pub fn image_size(model_config: &str) -> Option<usize> {
    let config: serde_json::Value = serde_json::from_str(model_config).ok()?;
    let first = config.pointer("/config/layers/0/config")?;
    let shape = first.get("batch_shape").or_else(|| first.get("batch_input_shape"))?;
    let at = |i: usize| shape.get(i).and_then(serde_json::Value::as_u64);
    match (at(1), at(2)) {
        (Some(rows), Some(columns)) if rows == columns => usize::try_from(rows).ok().filter(|r| *r > 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_layers_on_the_features_are_a_head() {
        let count = |shape: &[usize]| {
            HostTensor::new(shape, (0..shape.iter().product()).map(|v| v as f32).collect::<Vec<_>>()).unwrap()
        };
        let file = |layers: &[(&str, [usize; 2])]| -> Vec<(String, HostTensor)> {
            let both = layers.iter().flat_map(|(name, [inputs, out])| {
                [
                    (format!("{name}/kernel"), count(&[*inputs, *out])),
                    (format!("{name}/bias"), count(&[*out])),
                ]
            });
            both.collect()
        };
        let names = |t: &[(String, HostTensor)]| t.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
        let mut one = file(&[("dense", [1280, 19])]);
        assert_eq!(own_head(Arch::MobilenetV2, &mut one), Some((Head::Original, None)));
        assert_eq!(names(&one), ["classifier.1.weight", "classifier.1.bias"]);
        assert_eq!((one[0].1.shape(), one[0].1.data()[1]), (&[19, 1280][..], 19.0));
        let mut two = file(&[("first", [512, 8]), ("second", [8, 3])]);
        let pooled = Head::Pooled { hidden: vec![8], dropout: 0.0, batch_norm: false };
        assert_eq!(own_head(Arch::Vgg16, &mut two), Some((pooled, None)));
        assert_eq!(names(&two)[2..], ["classifier.3.weight", "classifier.3.bias"]);
        let mut map = file(&[("dense", [2 * 2 * 512, 3])]);
        let flattened = Head::Flattened { hidden: vec![], dropout: 0.0 };
        assert_eq!(own_head(Arch::Vgg16, &mut map), Some((flattened, Some(2))));
        // Input (c, h, w) = (5, 1, 0) was row (h * 2 + w) * 512 + c.
        assert_eq!(map[0].1.view()[[2, (5 * 2 + 1) * 2]], ((2 * 512 + 5) * 3 + 2) as f32);
        for (arch, layers) in [
            (Arch::Vgg16, vec![("a", [512, 8]), ("b", [9, 3])]),
            (Arch::Vgg16, vec![("a", [511, 8])]),
            (Arch::Vgg16, vec![("a", [3 * 512, 8])]),
            (Arch::Resnet50, vec![]),
        ] {
            let mut tensors = file(&layers);
            assert_eq!(own_head(arch, &mut tensors), None, "{layers:?}");
            assert_eq!(tensors, file(&layers));
        }
        let mut whole = file(&[("dense", [2048, 4])]);
        whole.push(("fc.bias".into(), count(&[4])));
        assert_eq!(own_head(Arch::Resnet50, &mut whole), None);
    }

    #[test]
    fn a_configuration_says_the_image_size() {
        let of = |layer: &str| image_size(&format!(r#"{{"config": {{"layers": [{{"config": {layer}}}]}}}}"#));
        assert_eq!(of(r#"{"batch_shape": [null, 160, 160, 3]}"#), Some(160));
        assert_eq!(of(r#"{"batch_input_shape": [null, 96, 96, 3]}"#), Some(96));
        assert_eq!(of(r#"{"batch_shape": [null, null, null, 3]}"#), None);
        assert_eq!(image_size("not json"), None);
    }
}
