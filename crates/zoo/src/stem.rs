//! Published weights of a first convolution on images of other channels than RGB.

use defrost_tensor::HostTensor;
use serde::{Deserialize, Serialize};

use crate::ZooError;

/// Whose rule turns weights for RGB into weights for other channels.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tradition {
    /// timm: one channel is the sum over RGB; `n` repeat RGB and are scaled by `3 / n`, which keeps the response to grey.
    #[default]
    Timm,
    /// fastai: one channel is the sum over RGB; two are red and green times 1.5; of more, the first three are RGB and the
    /// others start at zero, which keeps the response to RGB.
    Fastai,
}

/// The weights `[out, in, rows, columns]` of a first convolution for images of `in_channels` channels.
///
/// Weights that have as many channels already are returned as they are.
///
/// # Errors
/// [`ZooError::NoStem`] where the weights have not four axes, [`ZooError::OutOfRange`] for no channels.
pub fn adapt_in_channels(
    weight: &HostTensor,
    in_channels: usize,
    tradition: Tradition,
) -> Result<HostTensor, ZooError> {
    let &[out, from, rows, columns] = weight.shape() else {
        return Err(ZooError::NoStem { shape: weight.shape().into() });
    };
    crate::spec::at_least_one("the number of input channels", in_channels)?;
    crate::spec::at_least_one("the number of the weights' channels", from)?;
    if from == in_channels {
        return Ok(weight.clone());
    }
    let area = rows * columns;
    let mut data = vec![0.0; out * in_channels * area];
    let kernels = weight.data().chunks_exact((from * area).max(1));
    for (to, kernel) in data.chunks_exact_mut((in_channels * area).max(1)).zip(kernels) {
        if in_channels == 1 {
            for channel in kernel.chunks_exact(area) {
                to.iter_mut().zip(channel).for_each(|(t, k)| *t += k);
            }
            continue;
        }
        let (filled, factor) = match tradition {
            Tradition::Timm => (in_channels, from as f32 / in_channels as f32),
            Tradition::Fastai if in_channels < from => (in_channels, from as f32 / in_channels as f32),
            Tradition::Fastai => (from, 1.0),
        };
        let repeated = kernel.iter().cycle();
        to[..filled * area].iter_mut().zip(repeated).for_each(|(t, k)| *t = k * factor);
    }
    HostTensor::new([out, in_channels, rows, columns], data)
        .map_err(|_| ZooError::NoStem { shape: weight.shape().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapt(channels: usize, tradition: Tradition) -> Vec<f32> {
        // Two outputs, RGB, 1x2: the second output is ten times the first.
        let first = [1., 2., 3., 4., 5., 6.];
        let data = first.iter().copied().chain(first.map(|v| 10.0 * v)).collect();
        let rgb = HostTensor::new([2, 3, 1, 2], data).unwrap();
        let adapted = adapt_in_channels(&rgb, channels, tradition).unwrap();
        assert_eq!(adapted.shape(), [2, channels, 1, 2]);
        let (a, b) = adapted.data().split_at(2 * channels);
        assert!(a.iter().zip(b).all(|(a, b)| (10.0 * a - b).abs() < 1e-4));
        a.to_vec()
    }

    #[test]
    fn values_are_timms_and_fastais() {
        use Tradition::{Fastai, Timm};
        assert_eq!(adapt(1, Timm), [9., 12.]);
        assert_eq!(adapt(1, Fastai), [9., 12.]);
        assert_eq!(adapt(2, Timm), [1.5, 3., 4.5, 6.]);
        assert_eq!(adapt(2, Fastai), [1.5, 3., 4.5, 6.]);
        assert_eq!(adapt(3, Fastai), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(adapt(4, Timm), [0.75, 1.5, 2.25, 3., 3.75, 4.5, 0.75, 1.5]);
        assert_eq!(adapt(4, Fastai), [1., 2., 3., 4., 5., 6., 0., 0.]);
        assert_eq!(adapt(7, Timm)[12..], [3. / 7., 6. / 7.]);
        assert!(adapt_in_channels(&HostTensor::zeros([4]), 1, Timm).is_err());
        assert!(adapt_in_channels(&HostTensor::zeros([1, 3, 1, 1]), 0, Timm).is_err());
    }
}
