//! Memory that is not there and devices that go away: typed errors, and work that goes on elsewhere.

use std::sync::Arc;

use defrost_exec::{Engine, ExecError, Session};
use defrost_tensor::KernelError;
use defrost_wgpu::testing::open;
use defrost_wgpu::{OpenError, WgpuEngine, WgpuKernels, WgpuOptions};

use crate::step::{begin, session, step};

#[test]
fn no_room_names_the_batch_that_fits() {
    const ROOM: usize = 32 << 20;
    let mut options = WgpuOptions::default();
    options.memory = Some(ROOM as u64);
    let Some(kernels) = open(&options) else { return };
    let mut session = session(&WgpuEngine::with_kernels(kernels));
    let error = session.plan(1 << 16).map(|_| ()).unwrap_err();
    let ExecError::NoRoom { n, wanted_mb, fits: Some(fits), .. } = error else { panic!("{error:?}") };
    assert!(n == 1 << 16 && wanted_mb > 32, "{error}");
    assert!(error.to_string().ends_with(&format!("`--batch {fits}` fits")), "{error}");
    // It does, and what is four times as large does not.
    let memory = |session: &mut dyn Session, n| {
        let graph = Arc::clone(session.graph());
        session.plan(n).map(|plan| plan.memory(&graph, 2).total())
    };
    assert!(memory(&mut *session, fits).unwrap() <= ROOM);
    assert!(matches!(memory(&mut *session, 4 * fits), Err(ExecError::NoRoom { .. })));
    // The session is as good as before.
    assert!(step(&mut *session).unwrap().is_finite());
}

#[test]
fn what_a_lost_device_had_saved_goes_on_on_another() {
    let Some(kernels) = open(&WgpuOptions::default()) else { return };
    let mut unbroken = session(&WgpuEngine::with_kernels(Arc::clone(&kernels)));
    let want: Vec<_> = (0..4).map(|_| step(&mut *unbroken).unwrap()).collect();

    let mut first = session(&WgpuEngine::with_kernels(Arc::clone(&kernels)));
    step(&mut *first).unwrap();
    step(&mut *first).unwrap();
    let (params, state) = (first.params().unwrap(), first.optimizer().unwrap());
    kernels.lose();
    let error = step(&mut *first).unwrap_err();
    assert!(matches!(error, ExecError::Kernel(KernelError::DeviceLost { .. })), "{error:?}");
    assert!(error.to_string().contains("resume from the last checkpoint"), "{error}");
    assert!(first.params().is_err(), "a lost device gives no weights");

    let engine = WgpuEngine::new(&WgpuOptions::default()).unwrap();
    let mut second = engine.open(Arc::clone(first.graph()), &params).unwrap();
    begin(&mut *second);
    second.set_optimizer(&state).unwrap();
    let got: Vec<_> = (0..2).map(|_| step(&mut *second).unwrap()).collect();
    assert_eq!(got, want[2..], "the same adapter gives the same bits");
}

#[test]
fn an_adapter_that_is_not_there_is_answered_with_those_that_are() {
    let mut options = WgpuOptions::default();
    options.adapter = Some("no such card".into());
    let error = WgpuKernels::new(&options).unwrap_err();
    match &error {
        OpenError::NoAdapter => assert!(error.to_string().contains("mesa-vulkan-drivers"), "{error}"),
        _ => assert!(
            error.to_string().contains("no such card") && error.to_string().contains("0: "),
            "{error}"
        ),
    }
}
