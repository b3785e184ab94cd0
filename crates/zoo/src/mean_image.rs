//! A mean image: what recipes of before 2015 took away from pictures, pixel by pixel.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// An image of floats, `[channels, rows, columns]`, channels in the network's order. As text it is its shape and its
/// numbers, four bytes each from the lowest on, in base64.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct MeanImage {
    shape: [usize; 3],
    values: Arc<[f32]>,
}

impl MeanImage {
    /// The image of these values; `None` where they are none, not as many as the shape has places, or not finite.
    pub fn new(shape: [usize; 3], values: impl Into<Arc<[f32]>>) -> Option<Self> {
        let values = values.into();
        let len = shape.iter().try_fold(1, |len: usize, &side| len.checked_mul(side))?;
        let sound = len > 0 && len == values.len() && values.iter().all(|v| v.is_finite());
        sound.then_some(Self { shape, values })
    }

    /// Channels, rows, columns.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The numbers, channel by channel, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// What is taken away from pictures of `size` rows and columns, channel by channel.
    ///
    /// An image of the size that pictures are cropped to, `crop`, is of those. A larger one (Caffe's of 256 by 256) is of
    /// pictures before the crop, and its middle is taken, as the users of Caffe and Lasagne did. Where `size` is another than
    /// `crop`, what results is stretched to it, linearly.
    pub fn planes(&self, size: [usize; 2], crop: usize) -> Vec<Vec<f32>> {
        let [_, rows, columns] = self.shape;
        let larger = crop > 0 && rows >= crop && columns >= crop;
        let kept = if larger { [crop; 2] } else { [rows, columns] };
        let from = [(rows - kept[0]) / 2, (columns - kept[1]) / 2];
        // Where a pixel of the network's input lies between two of the image: their places and the second's share.
        let between = |axis: usize| {
            let ratio = kept[axis] as f32 / size[axis] as f32;
            (0..size[axis]).map(move |i| {
                let at = ((i as f32 + 0.5) * ratio - 0.5).clamp(0.0, (kept[axis] - 1) as f32);
                let low = at as usize;
                (from[axis] + low, from[axis] + (low + 1).min(kept[axis] - 1), at - low as f32)
            })
        };
        let columns_between: Vec<_> = between(1).collect();
        let plane = |plane: &[f32]| {
            let mut out = Vec::with_capacity(size[0] * size[1]);
            for (upper, lower, v) in between(0) {
                let (upper, lower) =
                    (&plane[upper * columns..][..columns], &plane[lower * columns..][..columns]);
                out.extend(columns_between.iter().map(|&(left, right, u)| {
                    let top = upper[left] + u * (upper[right] - upper[left]);
                    let bottom = lower[left] + u * (lower[right] - lower[left]);
                    top + v * (bottom - top)
                }));
            }
            out
        };
        self.values.chunks_exact(rows * columns).map(plane).collect()
    }
}

impl fmt::Debug for MeanImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeanImage({:?})", self.shape)
    }
}

/// A mean image as text.
#[derive(Deserialize, Serialize)]
struct Stored {
    shape: [usize; 3],
    f32: String,
}

impl From<MeanImage> for Stored {
    fn from(image: MeanImage) -> Self {
        let bytes: Vec<u8> = image.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape: image.shape, f32: STANDARD.encode(bytes) }
    }
}

impl TryFrom<Stored> for MeanImage {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let bytes =
            STANDARD.decode(&stored.f32).map_err(|e| format!("a mean image that is no base64: {e}"))?;
        let (words, rest) = bytes.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let image = Self::new(stored.shape, values).filter(|_| rest.is_empty());
        image.ok_or_else(|| format!("a mean image of shape {:?} with other numbers", stored.shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_survives_as_text_and_a_broken_one_is_refused() {
        let image = MeanImage::new([1, 2, 2], vec![1.5, -2.0, 1e-9, 255.0]).unwrap();
        let text = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<MeanImage>(&text).unwrap(), image);
        for broken in [text.replace("[1,2,2]", "[1,2,3]"), text.replace('"', "'"), text.replace("AA", "?A")] {
            assert!(serde_json::from_str::<MeanImage>(&broken).is_err(), "{broken}");
        }
        assert!(
            MeanImage::new([3, 0, 2], vec![]).is_none()
                && MeanImage::new([1, 1, 1], vec![f32::NAN]).is_none()
        );
        assert!(MeanImage::new([usize::MAX, 2, 1], vec![0.0]).is_none());
    }

    #[test]
    fn it_is_cropped_as_pictures_are_and_stretched_to_the_network() {
        let count = |shape: [usize; 3]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|v| v as f32).collect();
            MeanImage::new(shape, values).unwrap()
        };
        // Of the crop's size: as it is.
        assert_eq!(count([2, 2, 2]).planes([2, 2], 2), [vec![0., 1., 2., 3.], vec![4., 5., 6., 7.]]);
        // Of pictures before the crop: the middle.
        assert_eq!(count([1, 4, 4]).planes([2, 2], 2), [vec![5., 6., 9., 10.]]);
        // Stretched: edges stay, and between two pixels lie a quarter and three quarters.
        assert_eq!(count([1, 1, 2]).planes([1, 4], 2), [vec![0., 0.25, 0.75, 1.]]);
        assert_eq!(count([1, 4, 4]).planes([1, 1], 4), [vec![7.5]]);
    }
}
