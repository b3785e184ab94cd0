//! What this crate adds to the kernels: orders, lengths, the workspace. The arithmetic is tested in `defrost-kernels` and
//! by the conformance suite.

use defrost_tensor::call::*;
use defrost_tensor::{Activation, ConvDesc, KernelError, Kernels, Layout, Shape4};

use crate::{CpuBuf, CpuKernels};

fn upload(kernels: &CpuKernels, layout: Layout, host: &[f32]) -> CpuBuf {
    let mut buf = kernels.alloc(layout).unwrap();
    kernels.upload(layout, host, &mut buf).unwrap();
    buf
}

#[test]
fn published_orders_go_in_and_come_out() {
    let kernels = CpuKernels::new(Some(2));
    for layout in
        [Layout::Activation(Shape4::new(2, 3, 2, 2)), Layout::ConvWeight([4, 3, 2, 1]), Layout::Plain(24)]
    {
        let host: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let buf = upload(&kernels, layout, &host);
        let mut back = vec![0.0; 24];
        kernels.download(layout, &buf, &mut back).unwrap();
        assert_eq!(back, host);
        assert_eq!(buf.as_slice() == host, matches!(layout, Layout::Plain(_)));
    }
}

#[test]
fn values_that_are_given_away_arrive_as_those_that_are_lent() {
    let kernels = CpuKernels::new(Some(1));
    for layout in [Layout::Plain((5 << 19) + 3), Layout::Plain(7), Layout::ConvWeight([4, 3, 2, 1])] {
        let host: Vec<f32> = (0..layout.len()).map(|v| v as f32).collect();
        let mut given = kernels.alloc(layout).unwrap();
        kernels.upload_owned(layout, host.clone(), &mut given).unwrap();
        assert!(given.as_slice() == upload(&kernels, layout, &host).as_slice());
    }
}

#[test]
fn a_convolution_runs_in_slots_that_are_longer_than_its_values() {
    let kernels = CpuKernels::new(Some(1));
    let (desc, input) = (ConvDesc::new(2, 1, 2, 1, 0), Shape4::new(1, 2, 2, 2));
    let x = upload(&kernels, Layout::Activation(input), &[1., 2., 3., 4., 10., 20., 30., 40.]);
    let weight = upload(&kernels, Layout::ConvWeight(desc.weight_shape()), &[1., 0., 0., 1., 0., 1., 1., 0.]);
    let bias = upload(&kernels, Layout::Plain(1), &[-60.0]);
    let mut out = kernels.alloc(Layout::Plain(5)).unwrap();
    let mut run = |activation, bias| {
        let (x, weight) = (&x, &weight);
        let call = Conv2d { desc, input, activation, x, weight, bias, residual: None, out: &mut out };
        kernels.conv2d(call).unwrap();
        out.as_slice().to_vec()
    };
    assert_eq!(run(Activation::Identity, None), [55., 0., 0., 0., 0.]);
    assert_eq!(run(Activation::Relu, Some(&bias))[0], 0.0);
}

#[test]
fn too_much_memory_is_an_error_and_the_device_has_a_name() {
    let kernels = CpuKernels::new(Some(1));
    let error = kernels.alloc(Layout::Plain(1 << 60)).unwrap_err();
    assert!(matches!(error, KernelError::OutOfMemory { bytes, .. } if bytes == 1 << 62), "{error}");
    assert!(kernels.device().starts_with("cpu (1 thread, "));
}
