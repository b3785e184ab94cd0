//! MobileNetV2 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks"), of any width.

use defrost_tensor::{Activation, ConvDesc, NormDesc, Padding};

use crate::layers::{LinearInit, Net};
use crate::{Geometry, ModelSpec, ZooError, head};

/// Rows of the paper's table 2: expansion, channels, repeats, stride of the first.
const ROWS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

pub(crate) fn build(spec: &ModelSpec, net: &mut Net) -> Result<(), ZooError> {
    let style = Style { keras: spec.geometry == Geometry::Keras };
    let width = f64::from(spec.width);
    net.stage("features.0", false);
    let stem = divisible_by_8(32.0 * width);
    style.conv_norm(net, ["features.0.0", "features.0.1"], ConvDesc::new(spec.in_channels, stem, 3, 2, 1))?;
    net.activate("features.0.2", Activation::Relu6)?;
    let mut index = 1;
    for (expansion, channels, repeats, first_stride) in ROWS {
        let out = divisible_by_8(channels as f64 * width);
        for i in 0..repeats {
            let stride = if i == 0 { first_stride } else { 1 };
            inverted_residual(net, &format!("features.{index}"), style, expansion, out, stride)?;
            index += 1;
        }
    }
    net.stage("features.18", false);
    let last = ConvDesc::new(net.shape().c, divisible_by_8(1280.0 * width.max(1.0)), 1, 1, 0);
    style.conv_norm(net, ["features.18.0", "features.18.1"], last)?;
    net.activate("features.18.2", Activation::Relu6)?;
    let published =
        head::Published { node: "classifier.1", dropout: Some(0.2), init: LinearInit::Normal(0.01) };
    head::build(spec, net, published)
}

#[derive(Clone, Copy)]
struct Style {
    keras: bool,
}

impl Style {
    /// A convolution without bias and its normalisation, under the two names.
    fn conv_norm(self, net: &mut Net, names: [&str; 2], desc: ConvDesc) -> Result<(), ZooError> {
        // Keras' `correct_pad` at stride 2 is "same" padding; at stride 1 both agree.
        let same = self.keras && desc.stride == [2, 2];
        let desc = if same { desc.with_padding(Padding::Same) } else { desc };
        net.conv(names[0], desc, false)?;
        let c = desc.out_channels;
        net.norm(names[1], if self.keras { NormDesc::keras_mobilenet(c) } else { NormDesc::torch(c) })?;
        Ok(())
    }
}

fn inverted_residual(
    net: &mut Net,
    name: &str,
    style: Style,
    expansion: usize,
    out: usize,
    stride: usize,
) -> Result<(), ZooError> {
    net.stage(name, false);
    let (input, channels) = (net.at(), net.shape().c);
    let hidden = channels * expansion;
    let mut part = 0;
    let mut conv_norm_relu = |net: &mut Net, desc| {
        let names = [format!("{name}.conv.{part}.0"), format!("{name}.conv.{part}.1")];
        style.conv_norm(net, [&names[0], &names[1]], desc)?;
        net.activate(&format!("{name}.conv.{part}.2"), Activation::Relu6)?;
        part += 1;
        Ok::<_, ZooError>(())
    };
    if expansion > 1 {
        conv_norm_relu(net, ConvDesc::new(channels, hidden, 1, 1, 0))?;
    }
    conv_norm_relu(net, ConvDesc::new(hidden, hidden, 3, stride, 1).with_groups(hidden))?;
    let names = [format!("{name}.conv.{part}"), format!("{name}.conv.{}", part + 1)];
    style.conv_norm(net, [&names[0], &names[1]], ConvDesc::new(hidden, out, 1, 1, 0))?;
    if stride == 1 && channels == out {
        net.add(&format!("{name}.add"), input)?;
    }
    Ok(())
}

/// `channels` rounded to a multiple of 8, at least 8 and never below 90 % of it (TensorFlow slim's `make_divisible`).
fn divisible_by_8(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::divisible_by_8;

    #[test]
    fn widths_round_as_in_slim() {
        let at = |width: f64| ROWS_OUT.map(|c| divisible_by_8(c * width));
        const ROWS_OUT: [f64; 5] = [16.0, 24.0, 32.0, 96.0, 320.0];
        assert_eq!(at(1.0), [16, 24, 32, 96, 320]);
        assert_eq!(at(0.35), [8, 8, 16, 32, 112]);
        assert_eq!(at(1.4), [24, 32, 48, 136, 448]);
    }
}
