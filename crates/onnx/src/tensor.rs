//! Host arrays as ONNX tensors, and the folding of normalisations.

use bytes::Bytes;
use defrost_tensor::{HostTensor, call};

use crate::proto::{Tensor, data_type};

/// An array's elements as bytes, shared and not copied.
struct Raw(HostTensor);

impl AsRef<[u8]> for Raw {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.data())
    }
}

/// Floats.
pub(crate) fn floats(name: String, value: &HostTensor) -> Tensor {
    let dims = value.shape().iter().map(|&d| d as i64).collect();
    let raw_data = match cfg!(target_endian = "little") {
        true => Bytes::from_owner(Raw(value.clone())),
        false => value.data().iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    Tensor { dims, data_type: data_type::FLOAT, name, raw_data }
}

/// A vector of integers.
pub(crate) fn ints(name: String, values: &[i64]) -> Tensor {
    let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { dims: vec![values.len() as i64], data_type: data_type::INT64, name, raw_data }
}

/// Weights and bias of [`call::FoldNorm`], each product rounded once.
pub(crate) fn fold<W>(call: &call::FoldNorm<&HostTensor, W>) -> (HostTensor, HostTensor) {
    let channel = |tensor: &HostTensor, c: usize| f64::from(tensor.data()[c]);
    let mut weight = call.weight.clone();
    let fan_in = call.conv.fan_in();
    let mut bias = Vec::with_capacity(call.desc.channels);
    for (c, row) in weight.data_mut().chunks_exact_mut(fan_in).enumerate() {
        let scale =
            channel(call.norm_weight, c) / (channel(call.running_var, c) + f64::from(call.desc.eps)).sqrt();
        row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        let before = call.bias.map_or(0.0, |b| channel(b, c));
        bias.push((channel(call.norm_bias, c) + scale * (before - channel(call.running_mean, c))) as f32);
    }
    (weight, HostTensor::vector(bias))
}

/// The matrix `[out, size]` whose rows take the means of PyTorch's adaptive windows along one axis.
pub(crate) fn adaptive(
    ranges: impl ExactSizeIterator<Item = std::ops::Range<usize>>,
    size: usize,
) -> HostTensor {
    let out = ranges.len();
    let mut matrix = vec![0.0; out * size];
    for (row, range) in matrix.chunks_exact_mut(size).zip(ranges) {
        let mean = 1.0 / range.len() as f32;
        row[range].fill(mean);
    }
    HostTensor::new([out, size], matrix).expect("as many values as the shape has elements")
}
