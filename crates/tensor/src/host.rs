//! `HostTensor`: an f32 array in host memory, the currency between files, graphs and backends.

use ndarray::{ArcArray, ArrayViewD, IxDyn};

use crate::ShapeError;

/// A dense, row-major f32 array in host memory. Cloning is cheap: the data is shared until written.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor(ArcArray<f32, IxDyn>);

impl HostTensor {
    /// An array of `shape` over `data` in row-major order.
    ///
    /// # Errors
    /// [`ShapeError::Length`] where `data` does not hold exactly the product of `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, ShapeError> {
        let shape = shape.into();
        let (want, got) = (shape.iter().product(), data.len());
        ArcArray::from_shape_vec(IxDyn(&shape), data).map(Self).map_err(|_| ShapeError::Length {
            what: "host tensor",
            want,
            got,
        })
    }

    /// An array of `shape` in which every element is `value`.
    pub fn full(shape: impl Into<Vec<usize>>, value: f32) -> Self {
        Self(ArcArray::from_elem(IxDyn(&shape.into()), value))
    }

    /// An array of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        Self::full(shape, 0.0)
    }

    /// A one-dimensional array.
    pub fn vector(data: Vec<f32>) -> Self {
        Self(ArcArray::from_vec(data).into_dyn())
    }

    /// The extents, outermost first. A scalar has none.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The number of elements.
    #[allow(clippy::len_without_is_empty)] // An empty weight does not occur.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f32] {
        self.0.as_slice().expect("host tensors are always in standard layout")
    }

    /// The elements in row-major order, writable; copies them first if another tensor shares them.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.0.as_slice_mut().expect("host tensors are always in standard layout")
    }

    /// The elements as a vector, without a copy where nobody shares them.
    pub fn into_data(self) -> Vec<f32> {
        self.0.into_owned().into_raw_vec_and_offset().0
    }

    /// The elements as a vector if nobody shares them, else the tensor as it was.
    ///
    /// # Errors
    /// The tensor, where it shares its elements.
    pub fn try_into_data(self) -> Result<Vec<f32>, Self> {
        self.0.try_into_owned_nocopy().map(|array| array.into_raw_vec_and_offset().0).map_err(Self)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`ShapeError::Length`] where the number of elements differs.
    pub fn reshape(self, shape: impl Into<Vec<usize>>) -> Result<Self, ShapeError> {
        let shape = shape.into();
        let (want, got) = (shape.iter().product(), self.len());
        self.0.into_shape_with_order(IxDyn(&shape)).map(Self).map_err(|_| ShapeError::Length {
            what: "reshaped tensor",
            want,
            got,
        })
    }

    /// The axes reordered: axis `i` of the result is axis `order[i]` of `self`.
    ///
    /// # Panics
    /// Where `order` is no permutation of the axes.
    pub fn permute(&self, order: &[usize]) -> Self {
        let view = self.0.view().permuted_axes(IxDyn(order));
        Self(view.as_standard_layout().into_owned().into_shared())
    }

    /// The array as an `ndarray` view.
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        self.0.view()
    }

    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        // In pieces without a way out: those are vectorised.
        self.data().chunks(1024).all(|piece| piece.iter().fold(true, |fine, v| fine & v.is_finite()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permute_reorders_and_stays_row_major() {
        let t = HostTensor::new([2, 3], vec![1., 2., 3., 4., 5., 6.]).unwrap();
        let p = t.permute(&[1, 0]);
        assert_eq!(p.shape(), [3, 2]);
        assert_eq!(p.data(), [1., 4., 2., 5., 3., 6.]);
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let e = HostTensor::new([2, 2], vec![0.0; 3]).unwrap_err();
        assert_eq!(e, ShapeError::Length { what: "host tensor", want: 4, got: 3 });
    }

    #[test]
    fn writing_a_clone_leaves_the_original() {
        let a = HostTensor::zeros([2]);
        let mut b = a.clone();
        let b_shares = b.clone().try_into_data().is_err();
        b.data_mut()[0] = 1.0;
        assert_eq!(a.data(), [0.0, 0.0]);
        assert_eq!((b_shares, b.try_into_data()), (true, Ok(vec![1.0, 0.0])));
    }
}
