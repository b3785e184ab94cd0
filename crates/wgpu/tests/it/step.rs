//! Whole steps: what crosses, and in which numbers.

use std::sync::Arc;

use defrost_conformance::{golden_params, residual_network};
use defrost_exec::{Clip, Engine, ExecError, Images, Options, Phase, Rate, Rule, Session, TrainBatch};
use defrost_graph::{Loss, Marking, ParamMask};
use defrost_tensor::PixelScale;
use defrost_wgpu::testing::{open, shared};
use defrost_wgpu::{WgpuEngine, WgpuOptions};

const BATCH: usize = 4;
/// What a batch of the network is: bytes of the pictures and a row of targets an image; without dropout there are no keys.
const BYTES: u64 = (BATCH * (3 * 16 * 13 + 4 * 5)) as u64;

/// A session that trains all of a small residual network.
pub(crate) fn session(engine: &dyn Engine) -> Box<dyn Session> {
    let graph = Arc::new(residual_network());
    let mut session = engine.open(Arc::clone(&graph), &golden_params(&graph, "step")).unwrap();
    begin(&mut *session);
    session
}

pub(crate) fn begin(session: &mut dyn Session) {
    let marking = Marking::new(session.graph(), ParamMask::of(session.graph(), |_| true));
    session.begin(Phase { marking, loss: Loss::CrossEntropy, options: Options::default() }).unwrap();
}

/// Calls `f` with pictures and their targets, the same for each `which`.
fn with_batch<T>(
    session: &mut dyn Session,
    which: usize,
    f: impl FnOnce(&mut dyn Session, &TrainBatch<'_>) -> T,
) -> T {
    let classes = session.graph().classes();
    let len = session.graph().input_shape().with_batch(BATCH).len();
    let pixels: Vec<_> = (0..len).map(|i| (i * (i + which) / 7 % 251) as u8).collect();
    let scale = PixelScale { scale: vec![1.0 / 64.0; 3], shift: vec![-2.0; 3], reversed: false };
    let mut targets = vec![0.0; BATCH * classes];
    (0..BATCH).for_each(|i| targets[i * classes + (i + which) % classes] = 1.0 / BATCH as f32);
    let images = Images::Pixels(&pixels, &scale);
    f(session, &TrainBatch { n: BATCH, images, targets: &targets, weights: &[], keys: &[1.0; 2 * BATCH] })
}

const RULE: Rule = Rule::Sgd { momentum: 0.9, nesterov: false };

fn rates(session: &dyn Session) -> Vec<Rate> {
    session.graph().param_ids().map(|param| Rate { param, lr: 1e-2, weight_decay: 1e-4 }).collect()
}

/// One step on the same pictures each time; the loss.
pub(crate) fn step(session: &mut dyn Session) -> Result<f64, defrost_exec::ExecError> {
    let loss = with_batch(session, 0, |session, batch| session.forward_backward(batch))?.loss;
    session.clip(Clip::Norm(5.0))?;
    let rates = rates(session);
    session.apply(RULE, &rates)?;
    Ok(loss)
}

#[test]
fn a_step_takes_the_batch_in_and_gives_three_numbers_out() {
    // A device of its own: what other tests move must not be counted.
    let Some(kernels) = open(&WgpuOptions::default()) else { return };
    let mut session = session(&WgpuEngine::with_kernels(Arc::clone(&kernels)));
    // The second step meets workspaces that grew in the first.
    step(&mut *session).unwrap();
    step(&mut *session).unwrap();
    let (made, before) = (kernels.cached(), kernels.traffic());
    step(&mut *session).unwrap();
    let after = kernels.traffic();
    assert_eq!(after.up - before.up, BYTES);
    // The loss, the hits, the gradients' norm.
    assert_eq!(after.down - before.down, 12);
    assert_eq!(kernels.cached(), made, "pipelines and bind groups are made in the first two steps");
}

#[test]
fn the_next_batch_goes_to_the_device_while_it_is_at_this_one() {
    let Some(kernels) = open(&WgpuOptions::default()) else { return };
    let engine = WgpuEngine::with_kernels(Arc::clone(&kernels));
    let steps = 4;
    let one_by_one: Vec<_> = {
        let mut session = session(&engine);
        let rates = rates(&*session);
        let step = |which| with_batch(&mut *session, which, |s, batch| s.step(batch, RULE, &rates)).unwrap();
        (0..steps).map(step).collect()
    };

    let mut session = session(&engine);
    let rates = rates(&*session);
    let stage = |session: &mut dyn Session, which| {
        with_batch(session, which, |s, batch| s.stage(batch)).unwrap();
        kernels.traffic()
    };
    let first = session.start(RULE, &rates).unwrap_err();
    assert!(matches!(first, ExecError::NothingStaged), "{first:?}");
    stage(&mut *session, 0);
    let mut outputs = Vec::new();
    for which in 0..steps {
        let before = kernels.traffic();
        session.start(RULE, &rates).unwrap();
        assert_eq!(
            kernels.traffic(),
            before,
            "a batch that is staged crosses no more, and no loss is waited for"
        );
        let staged = stage(&mut *session, which + 1);
        assert_eq!(staged.up - before.up, BYTES);
        assert_eq!(
            staged.during_work - before.during_work,
            BYTES,
            "the step was submitted before the next batch"
        );
        assert_eq!(staged.down, before.down, "the next batch was given before the loss was read");
        outputs.push(session.finish().unwrap());
        let finished = kernels.traffic();
        assert_eq!((finished.up, finished.down), (staged.up, before.down + 8), "the loss and the hits");
        session.apply(RULE, &rates).unwrap();
    }
    assert_eq!(outputs, one_by_one, "the same bits");
    let twice = session.finish().unwrap_err();
    assert!(matches!(twice, ExecError::NothingStarted), "{twice:?}");
}

#[test]
fn half_precision_learns_as_single_does() {
    let Some(kernels) = shared() else { return };
    if !kernels.adapter().half {
        eprintln!("\n*** SKIPPED: {} has no 16-bit floating point ***\n", kernels.adapter());
        return;
    }
    let mut options = WgpuOptions::default();
    options.half = true;
    let half = WgpuEngine::new(&options).unwrap();
    assert!(half.device().contains("f16"), "{}", half.device());
    let losses = |engine: &dyn Engine| {
        let mut session = session(engine);
        (0..6).map(|_| step(&mut *session).unwrap()).collect::<Vec<_>>()
    };
    let (single, half) = (losses(&WgpuEngine::with_kernels(kernels)), losses(&half));
    assert_ne!(single, half, "16 bits were not used");
    assert!(single[5] < single[0] && half[5] < half[0], "f32 {single:?}, f16 {half:?}");
    for (single, half) in single.iter().zip(&half) {
        assert!((single - half).abs() < 0.03 * (1.0 + single), "f32 {single}, f16 {half}");
    }
}
