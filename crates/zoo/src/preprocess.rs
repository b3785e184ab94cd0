//! How pictures become numbers: it belongs to the weights, not to the network.

use defrost_tensor::PixelScale;
use serde::{Deserialize, Serialize};

use crate::{Arch, Geometry, MeanImage};

/// How pixels between pixels are computed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interpolation {
    /// From the nearest two in each direction.
    #[default]
    Bilinear,
    /// From the nearest four in each direction.
    Bicubic,
}

/// What weights were trained on, and the evaluation transform that belongs to them: the shorter side is resized to
/// [`Preprocess::resize_for`] the network's image size, then the centre is cropped.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Preprocess {
    /// Subtracted from values in 0…1, one a channel in the network's order.
    pub mean: Vec<f64>,
    /// Divides what remains, one a channel in the network's order.
    pub std: Vec<f64>,
    /// Whether the network takes blue, green, red.
    #[serde(default)]
    pub reversed: bool,
    /// Length of the shorter side before the crop, in pixels, for a crop of [`Preprocess::crop`].
    pub resize: usize,
    /// Rows and columns of the crop that the published accuracy is for.
    pub crop: usize,
    /// How pictures are resized.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// What is subtracted from values in 0…255 in place of the mean, pixel by pixel, where weights were trained so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_image: Option<MeanImage>,
}

impl Preprocess {
    fn new(mean: [f64; 3], std: [f64; 3]) -> Self {
        let (mean, std) = (mean.into(), std.into());
        let (interpolation, mean_image) = (Interpolation::Bilinear, None);
        Self { mean, std, reversed: false, resize: 256, crop: 224, interpolation, mean_image }
    }

    /// ImageNet's mean and deviation; 256, cropped to 224 (torchvision, timm).
    pub fn torch() -> Self {
        Self::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    }

    /// As [`Preprocess::torch`], but 232, cropped to 224: torchvision's second weights of ResNet50 and MobileNetV2.
    pub fn torch_v2() -> Self {
        Self::torch().with_size(232, 224)
    }

    /// As [`Preprocess::torch`], resized by the cubic rule: what is usual for timm's weights.
    pub fn timm() -> Self {
        Self::torch().with_interpolation(Interpolation::Bicubic)
    }

    /// `x / 127.5 - 1`; the whole picture at 224 (Keras' MobileNetV2: Keras resizes and does not crop).
    pub fn tf() -> Self {
        Self { resize: 224, ..Self::new([0.5; 3], [0.5; 3]) }
    }

    /// Blue, green, red, less the mean of ImageNet, in 0…255; the whole picture at 224 (Keras' ResNet50 and VGG16).
    pub fn caffe() -> Self {
        let mean = [103.939 / 255.0, 116.779 / 255.0, 123.68 / 255.0];
        Self { reversed: true, resize: 224, ..Self::new(mean, [1.0 / 255.0; 3]) }
    }

    /// Values in -1…1; 256, cropped to 224 (timm's inception mean and deviation, BiT).
    pub fn inception() -> Self {
        Self::new([0.5; 3], [0.5; 3])
    }

    /// `(x - 127) / 128` on 0…255; 256, cropped to 224 (EfficientNet-Lite).
    pub fn lite() -> Self {
        Self::new([127.0 / 255.0; 3], [128.0 / 255.0; 3]).with_interpolation(Interpolation::Bicubic)
    }

    /// The family of that name, one of [`Preprocess::FAMILIES`], as a file's metadata says it.
    pub fn from_family(name: &str) -> Option<Self> {
        match name {
            "torch" => Some(Self::torch()),
            "torch_v2" => Some(Self::torch_v2()),
            "timm" => Some(Self::timm()),
            "tf" => Some(Self::tf()),
            "caffe" => Some(Self::caffe()),
            "inception" => Some(Self::inception()),
            "lite" => Some(Self::lite()),
            _ => None,
        }
    }

    /// The families by name.
    pub const FAMILIES: [&'static str; 7] = ["torch", "torch_v2", "timm", "tf", "caffe", "inception", "lite"];

    /// What is usual for weights of `arch` in `geometry`: what a framework's own weights need.
    pub fn usual(arch: Arch, geometry: Geometry) -> Self {
        match (geometry, arch) {
            (Geometry::Tensorflow, _) => Self::lite(),
            (Geometry::Keras, Arch::MobilenetV2) => Self::tf(),
            (Geometry::Keras, _) => Self::caffe(),
            (Geometry::Lasagne, _) => Self::caffe().with_size(256, 224),
            (Geometry::Torch, _) => Self::torch(),
        }
    }

    /// The same with a shorter side of `resize` cropped to `crop`.
    pub fn with_size(self, resize: usize, crop: usize) -> Self {
        Self { resize, crop, ..self }
    }

    /// The same with another interpolation.
    pub fn with_interpolation(self, interpolation: Interpolation) -> Self {
        Self { interpolation, ..self }
    }

    /// The share of the shorter side that the crop keeps, as in 0.875.
    pub fn crop_fraction(&self) -> f64 {
        self.crop as f64 / self.resize as f64
    }

    /// The shorter side's length before a crop to `size`: the published ratio, rounded down (timm's rule).
    pub fn resize_for(&self, size: usize) -> usize {
        (size * self.resize).checked_div(self.crop).unwrap_or(size).max(size)
    }

    /// What becomes of the pixels of a network's input of `in_channels` channels and `size` rows and columns: as
    /// [`Preprocess::pixel_scale`], with a summand a pixel where there is a mean image.
    pub fn input_scale(&self, in_channels: usize, size: [usize; 2]) -> PixelScale {
        let mut scale = self.pixel_scale(in_channels);
        if let Some(image) = &self.mean_image {
            let planes = image.planes(size, self.crop);
            let at = |c: usize, i: usize| match planes.len() {
                n if in_channels == 1 && n > 1 => planes.iter().map(|p| p[i]).sum::<f32>() / n as f32,
                n => planes[c % n][i],
            };
            let channel = |c: usize| {
                let factor = scale.scale[c];
                (0..size[0] * size[1]).map(move |i| (c, i, factor))
            };
            let all = (0..in_channels).flat_map(channel);
            scale.shift = all.map(|(c, i, factor)| -at(c, i) * factor).collect();
        }
        scale
    }

    /// The constants for a network of `in_channels` channels, a mean image left out. Where these are not the published
    /// number, one channel takes the mean of the constants, and more repeat them in turn.
    pub fn pixel_scale(&self, in_channels: usize) -> PixelScale {
        let pick = |values: &[f64], i: usize, default: f64| match values.len() {
            0 => default,
            n if in_channels == 1 && n > 1 => values.iter().sum::<f64>() / n as f64,
            n => values[i % n],
        };
        let channels = (0..in_channels).map(|i| (pick(&self.mean, i, 0.0), pick(&self.std, i, 1.0)));
        let (scale, shift) =
            channels.map(|(mean, std)| ((1.0 / (255.0 * std)) as f32, (-mean / std) as f32)).unzip();
        PixelScale { scale, shift, reversed: self.reversed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(p: &Preprocess, channels: usize, byte: f32) -> Vec<f32> {
        let scale = p.pixel_scale(channels);
        scale.scale.iter().zip(&scale.shift).map(|(a, b)| byte * a + b).collect()
    }

    #[test]
    fn pixels_become_what_the_frameworks_make_of_them() {
        let near = |got: Vec<f32>, want: &[f32]| {
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 2e-5), "{got:?} {want:?}");
        };
        near(at(&Preprocess::torch(), 3, 255.0), &[0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]);
        near(at(&Preprocess::tf(), 3, 0.0), &[-1.0; 3]);
        near(at(&Preprocess::tf(), 3, 255.0), &[1.0; 3]);
        near(at(&Preprocess::caffe(), 3, 100.0), &[-3.939, -16.779, -23.68]);
        assert!(Preprocess::caffe().pixel_scale(3).reversed);
        near(at(&Preprocess::lite(), 3, 255.0), &[1.0; 3]);
        near(at(&Preprocess::lite(), 3, 0.0), &[-127.0 / 128.0; 3]);
        near(at(&Preprocess::torch(), 1, 0.0), &[-0.449 / 0.226]);
        assert_eq!(at(&Preprocess::torch(), 4, 9.0)[3], at(&Preprocess::torch(), 4, 9.0)[0]);
    }

    #[test]
    fn a_mean_image_is_taken_from_each_pixel() {
        let image = MeanImage::new([3, 1, 2], vec![10., 20., 30., 40., 50., 60.]).unwrap();
        let caffe = Preprocess { mean_image: Some(image), ..Preprocess::caffe().with_size(2, 2) };
        let scale = caffe.input_scale(3, [1, 2]);
        // Pixels are red, green, blue; the network's first plane is blue.
        let shape = defrost_tensor::Shape4::new(1, 3, 1, 2);
        assert!(scale.is_image(shape) && !Preprocess::caffe().input_scale(3, [1, 2]).is_image(shape));
        let got = scale.apply(shape, &[1, 2, 3, 101, 102, 103]);
        assert!(
            got.iter().zip([-7., 83., -28., 62., -49., 41.]).all(|(g, w)| (g - w).abs() < 1e-4),
            "{got:?}"
        );
        assert!((caffe.input_scale(1, [1, 2]).shift[1] + 40.0).abs() < 1e-4, "of one channel the mean");
        let text = serde_json::to_string(&caffe).unwrap();
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), caffe);
    }

    #[test]
    fn the_published_ratio_scales() {
        let v1 = Preprocess::torch();
        assert_eq!((v1.resize_for(224), v1.resize_for(160), v1.crop_fraction()), (256, 182, 0.875));
        assert_eq!(Preprocess::torch().with_size(232, 224).resize_for(224), 232);
        assert_eq!(Preprocess::tf().resize_for(160), 160);
    }

    #[test]
    fn families_are_found_and_survive_serialisation() {
        for name in Preprocess::FAMILIES {
            let family = Preprocess::from_family(name).unwrap();
            let text = serde_json::to_string(&family).unwrap();
            assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), family);
        }
        assert_eq!(Preprocess::from_family("coffee"), None);
    }
}
