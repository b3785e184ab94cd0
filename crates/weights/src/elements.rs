//! Numbers as files store them, and their way to f32.

use std::borrow::Cow;

use defrost_tensor::HostTensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The most dimensions a tensor in a file may have.
const MAX_RANK: usize = 32;

/// The type of a stored number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    /// The bytes of one number.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The numbers in `bytes` as f32, rounded to nearest where f32 cannot hold them.
    pub(crate) fn decode(self, bytes: &[u8], big_endian: bool) -> Vec<f32> {
        let size = self.size();
        let bytes: Cow<'_, [u8]> = if big_endian && size > 1 {
            Cow::Owned(bytes.chunks_exact(size).flat_map(|c| c.iter().rev().copied()).collect())
        } else {
            Cow::Borrowed(bytes)
        };
        macro_rules! cast {
            ($t:ty) => {
                bytes.as_chunks().0.iter().map(|&b| <$t>::from_le_bytes(b) as f32).collect()
            };
        }
        match self {
            Self::Bool => bytes.iter().map(|&b| f32::from(b != 0)).collect(),
            Self::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
            Self::I8 => cast!(i8),
            Self::U16 => cast!(u16),
            Self::I16 => cast!(i16),
            Self::U32 => cast!(u32),
            Self::I32 => cast!(i32),
            Self::U64 => cast!(u64),
            Self::I64 => cast!(i64),
            Self::F32 => cast!(f32),
            Self::F64 => cast!(f64),
            Self::F16 => {
                let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect();
                let mut out = vec![0.0; halves.len()];
                halves.convert_to_f32_slice(&mut out);
                out
            }
            Self::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }
}

/// The number of elements of `shape`, where memory could hold that many: the product of the extents that are not zero
/// must fit, so that no later product overflows either.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK {
        return None;
    }
    let full = shape.iter().filter(|&&d| d > 0).try_fold(1_usize, |n, &d| n.checked_mul(d))?;
    (full <= isize::MAX as usize / 8).then(|| if shape.contains(&0) { 0 } else { full })
}

/// The tensor of `shape` over `data`, which lies row-major or, with `fortran`, column-major.
pub(crate) fn tensor(shape: &[usize], data: Vec<f32>, fortran: bool) -> Option<HostTensor> {
    count(shape)?;
    if !fortran || shape.len() < 2 {
        return HostTensor::new(shape, data).ok();
    }
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    let order: Vec<usize> = (0..shape.len()).rev().collect();
    Some(HostTensor::new(reversed, data).ok()?.permute(&order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_decodes() {
        let eq = |e: Element, le: &[u8], want: &[f32]| {
            assert_eq!(e.decode(le, false), want, "{e:?}");
            let be: Vec<u8> = le.chunks(e.size()).flat_map(|c| c.iter().rev().copied()).collect();
            assert_eq!(e.decode(&be, true), want, "{e:?}, big-endian");
        };
        eq(Element::Bool, &[0, 1, 2], &[0., 1., 1.]);
        eq(Element::U8, &[255], &[255.]);
        eq(Element::I8, &[255], &[-1.]);
        eq(Element::U16, &[1, 2], &[513.]);
        eq(Element::I16, &[254, 255], &[-2.]);
        eq(Element::U32, &[0, 0, 0, 128], &[2147483648.]);
        eq(Element::I32, &[255; 4], &[-1.]);
        eq(Element::U64, &7_u64.to_le_bytes(), &[7.]);
        eq(Element::I64, &(-7_i64).to_le_bytes(), &[-7.]);
        eq(Element::F16, &[f16::from_f32(1.5).to_le_bytes(), [0, 0xC0]].concat(), &[1.5, -2.]);
        eq(Element::Bf16, &bf16::from_f32(-3.0).to_le_bytes(), &[-3.]);
        eq(Element::F32, &1.25_f32.to_le_bytes(), &[1.25]);
        eq(Element::F64, &0.1_f64.to_le_bytes(), &[0.1]);
    }

    #[test]
    fn hostile_extents_are_no_count() {
        assert_eq!(count(&[]), Some(1));
        assert_eq!(count(&[3, 0, 5]), Some(0));
        assert_eq!(count(&[usize::MAX, 2, 0]), None);
        assert_eq!(count(&[1 << 32, 1 << 32]), None);
        assert_eq!(count(&[1; 33]), None);
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        let t = tensor(&[2, 3], vec![1., 4., 2., 5., 3., 6.], true).unwrap();
        assert_eq!((t.shape(), t.data()), (&[2, 3][..], &[1., 2., 3., 4., 5., 6.][..]));
    }
}
