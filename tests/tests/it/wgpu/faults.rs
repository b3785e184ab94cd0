//! A device that goes away in the middle of a run, which goes on elsewhere.

use std::sync::Arc;

use defrost::exec::ExecError;
use defrost::tensor::KernelError;
use defrost::train::{Ending, Event, Options, TrainError};
use defrost::wgpu::{WgpuEngine, WgpuOptions, testing};
use defrost::{Error, Start};

use crate::resume::{emoji, fine_tune};

#[test]
fn a_run_on_a_lost_device_goes_on_on_another() {
    let Some(kernels) = testing::open(&WgpuOptions::default()) else { return };
    let temp = tempfile::tempdir().unwrap();
    let (data, folder) = (temp.path().join("data"), temp.path().join("run"));
    emoji(&data);
    let mut prepared = fine_tune(&data, &folder, 2).prepare().unwrap();
    prepared.engine = Box::new(WgpuEngine::with_kernels(Arc::clone(&kernels)));
    let mut steps = 0;
    let on_event = Box::new(|event: &Event| {
        steps += usize::from(matches!(event, Event::Step(_)));
        if steps == 6 {
            kernels.lose();
        }
    });
    let error = prepared.train(Start::Fresh, Options { on_event, ..Options::default() }).unwrap_err();
    let Error::Train(TrainError::Exec(ExecError::Kernel(KernelError::DeviceLost { .. }))) = &error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("resume from the last checkpoint"), "{error}");
    // The run's lock goes with what held it.
    drop(prepared);
    let prepared = fine_tune(&data, &folder, 2).prepare().unwrap();
    let outcome = prepared.train(Start::Resume, Options::default()).unwrap();
    assert!(matches!(outcome.ending, Ending::Done(_)));
}
