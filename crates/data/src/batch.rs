//! What a loader hands out.

/// Images of one size with their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[n, h, w, channels]`, 8 bits a channel, not normalised.
    pub pixels: Vec<u8>,
    /// Images.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Pixels in a row.
    pub w: usize,
    /// Channels.
    pub channels: usize,
    /// The class of each image, or [`NO_LABEL`](crate::NO_LABEL).
    pub labels: Vec<u32>,
    /// `[n, classes]` where the data set has targets in place of labels; otherwise empty.
    pub targets: Vec<f32>,
    /// Which sample of the data set each image is: the sample part of keys.
    pub samples: Vec<usize>,
}
