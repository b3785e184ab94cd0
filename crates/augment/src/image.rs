//! The image that all transforms work on: interleaved 8-bit pixels.

use crate::Error;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Size {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// `side x side` pixels.
    pub const fn square(side: usize) -> Self {
        Self { width: side, height: side }
    }
}

/// An image of 1 to 4 interleaved channels: `data[(y * width + x) * channels + c]`, rows from the top.
///
/// One channel is grey, two are grey and alpha, three RGB, four RGBA; colour operations leave an alpha channel
/// as it is. Both sides are at least one pixel.
#[derive(Clone, Eq, PartialEq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    data: Vec<u8>,
}

impl Image {
    /// An image of pixels in `[height, width, channels]` order.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is zero, `channels` is not 1 to 4, or the length is not their product.
    pub fn new(width: usize, height: usize, channels: usize, data: Vec<u8>) -> Result<Self, Error> {
        let fits = width.checked_mul(height).and_then(|p| p.checked_mul(channels)) == Some(data.len());
        if !fits || data.is_empty() || channels > 4 {
            return Err(Error::Shape { width, height, channels, len: data.len() });
        }
        Ok(Self { width, height, channels, data })
    }

    /// An image of one colour, with as many channels as `colour` has values.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is zero or `colour` does not have 1 to 4 values.
    pub fn filled(width: usize, height: usize, colour: &[u8]) -> Result<Self, Error> {
        Self::new(width, height, colour.len(), colour.repeat(width * height))
    }

    /// Pixels in a row.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub const fn height(&self) -> usize {
        self.height
    }

    /// Width and height.
    pub const fn size(&self) -> Size {
        Size { width: self.width, height: self.height }
    }

    /// Interleaved channels, 1 to 4.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// The pixels in `[height, width, channels]` order.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The pixels, to change in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The pixels in `[height, width, channels]` order, without a copy.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// The channels of the pixel at column `x` and row `y`.
    ///
    /// # Panics
    /// If the position is outside of the image.
    pub fn pixel(&self, x: usize, y: usize) -> &[u8] {
        assert!(x < self.width && y < self.height, "pixel ({x}, {y}) of {self:?}");
        let at = (y * self.width + x) * self.channels;
        &self.data[at..at + self.channels]
    }

    /// Channels that carry colour: one of grey (and alpha), three of RGB (and alpha).
    pub(crate) const fn colours(&self) -> usize {
        if self.channels < 3 { 1 } else { 3 }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} x {} x {})", self.width, self.height, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_once_when_an_image_is_made() {
        assert!(Image::new(2, 3, 3, vec![0; 18]).is_ok());
        for (w, h, c, len) in
            [(2, 3, 3, 17), (0, 3, 3, 0), (2, 3, 5, 30), (2, 3, 0, 0), (usize::MAX, 2, 3, 6)]
        {
            let error = Image::new(w, h, c, vec![0; len]).unwrap_err();
            assert_eq!(error, Error::Shape { width: w, height: h, channels: c, len });
        }
        assert!(Image::new(0, 3, 3, vec![]).unwrap_err().to_string().contains("0 x 3"));
    }

    #[test]
    fn pixels_are_interleaved_rows() {
        let image = Image::new(2, 2, 2, vec![0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        assert_eq!(image.pixel(1, 0), [2, 3]);
        assert_eq!(image.pixel(0, 1), [4, 5]);
    }
}
