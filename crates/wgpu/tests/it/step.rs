//! Whole steps: what crosses, and in which numbers.

use std::sync::Arc;

use defrost_conformance::{golden_params, residual_network};
use defrost_exec::{Clip, Engine, Images, Options, Phase, Rate, Rule, Session, TrainBatch};
use defrost_graph::{Loss, Marking, ParamMask};
use defrost_tensor::PixelScale;
use defrost_wgpu::testing::{open, shared};
use defrost_wgpu::{WgpuEngine, WgpuOptions};

const BATCH: usize = 4;

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

/// One step on the same pictures each time; the loss.
pub(crate) fn step(session: &mut dyn Session) -> Result<f64, defrost_exec::ExecError> {
    let classes = session.graph().classes();
    let len = session.graph().input_shape().with_batch(BATCH).len();
    let pixels: Vec<_> = (0..len).map(|i| (i * i / 7 % 251) as u8).collect();
    let scale = PixelScale { scale: vec![1.0 / 64.0; 3], shift: vec![-2.0; 3], reversed: false };
    let mut targets = vec![0.0; BATCH * classes];
    (0..BATCH).for_each(|i| targets[i * classes + i % classes] = 1.0 / BATCH as f32);
    let batch = TrainBatch {
        n: BATCH,
        images: Images::Pixels(&pixels, &scale),
        targets: &targets,
        weights: &[],
        keys: &[1.0; 2 * BATCH],
    };
    let loss = session.forward_backward(&batch)?.loss;
    session.clip(Clip::Norm(5.0))?;
    let rates: Vec<_> =
        session.graph().param_ids().map(|param| Rate { param, lr: 1e-2, weight_decay: 1e-4 }).collect();
    session.apply(Rule::Sgd { momentum: 0.9, nesterov: false }, &rates)?;
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
    // Bytes of the pictures and a row of targets an image; without dropout there are no keys.
    assert_eq!(after.up - before.up, (BATCH * (3 * 16 * 13 + 4 * 5)) as u64);
    // The loss, the hits, the gradients' norm.
    assert_eq!(after.down - before.down, 12);
    assert_eq!(kernels.cached(), made, "pipelines and bind groups are made in the first two steps");
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
