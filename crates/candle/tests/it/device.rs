//! Devices that are not there, memory that is not there.

use defrost_candle::{CandleKernels, CandleOptions, OpenError, Place, Precision, devices};
use defrost_tensor::{KernelError, Kernels, Layout};

#[test]
fn the_cpu_is_listed_and_has_no_16_bits() {
    assert_eq!(devices()[0].0, "candle:cpu");
    let mut options = CandleOptions::new(Place::Cpu { threads: Some(1) });
    for precision in [Precision::F16, Precision::Bf16] {
        options.precision = precision;
        let error = CandleKernels::new(&options).unwrap_err();
        assert!(matches!(error, OpenError::NoSuchPrecision { .. }) && error.is_usage(), "{error}");
    }
}

#[test]
fn a_device_of_another_build_names_the_feature() {
    for (place, feature, built) in [
        (Place::Cuda(0), "candle-cuda", cfg!(feature = "cuda")),
        (Place::Metal(0), "candle-metal", cfg!(feature = "metal")),
    ] {
        let error = CandleKernels::new(&CandleOptions::new(place)).map(|_| ()).err();
        assert!(built || error.unwrap().to_string().contains(feature), "{feature}");
    }
}

#[test]
fn too_much_memory_is_an_error() {
    let kernels = CandleKernels::new(&CandleOptions::new(Place::Cpu { threads: Some(1) })).unwrap();
    let error = kernels.alloc(Layout::Plain(1 << 60)).unwrap_err();
    assert!(matches!(error, KernelError::OutOfMemory { bytes, .. } if bytes == 1 << 62), "{error}");
    assert!(kernels.device().starts_with("candle cpu (1 thread, "), "{}", kernels.device());
}
