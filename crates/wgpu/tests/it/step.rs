//! Whole steps: what crosses, and in which numbers.

use std::sync::Arc;

use defrost_conformance::{golden_params, residual_network};
use defrost_exec::{Clip, Engine, ExecError, Images, Options, Phase, Rate, Rule, Session, TrainBatch};
use defrost_graph::{Loss, Marking, ParamMask};
use defrost_tensor::PixelScale;
use defrost_wgpu::testing::open;
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

/// A device that stores activations in 16 bits and one that does not, where the adapter can.
fn half_and_single(memory: Option<u64>) -> Option<[WgpuEngine; 2]> {
    let mut options = WgpuOptions::default();
    options.memory = memory;
    let single = open(&options)?;
    if !single.adapter().half {
        eprintln!("\n*** SKIPPED: {} has no 16-bit floating point ***\n", single.adapter());
        return None;
    }
    options.half = true;
    Some([WgpuEngine::new(&options).unwrap(), WgpuEngine::with_kernels(single)])
}

#[test]
fn in_16_bits_there_is_room_for_twice_the_batch() {
    let Some(engines) = half_and_single(Some(24 << 20)) else { return };
    let fits = engines.map(|engine| {
        let mut session = session(&engine);
        let image = session.graph().input_shape().len();
        let pixels = vec![0.0; image << 14];
        match session.infer(1 << 14, Images::Array(&pixels)).unwrap_err() {
            ExecError::NoRoom { wanted_mb, fits: Some(fits), .. } => (wanted_mb, fits),
            error => panic!("{error:?}"),
        }
    });
    let [(half_mb, half), (single_mb, single)] = fits;
    assert_eq!(half, 2 * single, "{half_mb} MB and {single_mb} MB");
    assert!(20 * half_mb < 11 * single_mb, "{half_mb} MB and {single_mb} MB");
}

#[test]
fn slots_shared_by_values_of_16_and_of_32_bits_change_no_bit() {
    let Some([half, _]) = half_and_single(None) else { return };
    let run = |share| {
        let mut session = session(&half);
        let marking = Marking::new(session.graph(), ParamMask::of(session.graph(), |_| true));
        let mut options = Options::default();
        options.share = share;
        session.begin(Phase { marking, loss: Loss::CrossEntropy, options }).unwrap();
        let losses: Vec<_> = (0..3).map(|_| step(&mut *session).unwrap()).collect();
        let whole = with_batch(&mut *session, 0, |s, batch| s.infer(BATCH, batch.images)).unwrap();
        // With the first stage frozen, from what it puts out, which lies in a buffer of 16 bits.
        let graph = Arc::clone(session.graph());
        let mask = ParamMask::of(&graph, |id| graph.stage_of(id) > 0);
        let marking = Marking::new(&graph, mask);
        session.begin(Phase { marking, loss: Loss::CrossEntropy, options }).unwrap();
        let features = with_batch(&mut *session, 0, |s, batch| s.features(BATCH, batch.images)).unwrap();
        let rest = session.infer(BATCH, Images::Features(&features)).unwrap();
        assert_eq!(rest, with_batch(&mut *session, 0, |s, batch| s.infer(BATCH, batch.images)).unwrap());
        (losses, whole, session.grads().unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn half_precision_learns_as_single_does() {
    let Some([half, single]) = half_and_single(None) else { return };
    assert!(half.device().contains("f16"), "{}", half.device());
    let losses = |engine: &dyn Engine| {
        let mut session = session(engine);
        (0..6).map(|_| step(&mut *session).unwrap()).collect::<Vec<_>>()
    };
    let (single, half) = (losses(&single), losses(&half));
    assert_ne!(single, half, "16 bits were not used");
    assert!(single[5] < single[0] && half[5] < half[0], "f32 {single:?}, f16 {half:?}");
    for (single, half) in single.iter().zip(&half) {
        assert!((single - half).abs() < 0.03 * (1.0 + single), "f32 {single}, f16 {half}");
    }
}
