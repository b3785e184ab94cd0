//! Whole networks: every marking on the raw, the folded, the fused and the slot-planned plan, against the same in f64.

use std::sync::Arc;

use defrost_exec::{Clip, ExecError, Images, Interpreter, Phase, Rate, Rule, Session, TrainBatch};
use defrost_graph::{Graph, Marking, ParamId};
use defrost_plan::Options;
use defrost_tensor::{KernelError, Kernels};

use crate::networks::{Batch, Network, networks};
use crate::reference::{Reference, Step};
use crate::run::caught;
use crate::{Expectation, Failure, Outcome, Report};

/// What some ten layers in f32 may be off by. What a planner or a kernel gets wrong is off by far more.
const TOLERANCE: f64 = 1e-4;

/// Runs small networks through the planner and the interpreter on `kernels`, and compares losses, every gradient,
/// weights, running statistics and predictions with the same steps in f64 on plans without any optional pass.
///
/// Each marking (stages of unfreezing, kinds of parameters, modes of batch normalisation) is run on the raw plan, with
/// each optional pass alone, with all, and with gradients added up; then one session goes through several markings and
/// batch sizes. Errors may be `scale` times what a CPU's f32 may be off by.
pub fn run_plans<K: Kernels>(kernels: &Arc<K>, scale: f64, expect: &[Expectation]) -> Report {
    run_networks(kernels, networks(), TOLERANCE * scale, expect)
}

pub(crate) fn run_networks<K: Kernels>(
    kernels: &Arc<K>,
    networks: Vec<Network>,
    tolerance: f64,
    expect: &[Expectation],
) -> Report {
    let mut outcomes = Vec::new();
    for network in networks {
        let mut run = |case: String, script: &dyn Fn(&mut Outcome) -> Result<(), ExecError>| {
            let mut outcome = Outcome::new(format!("plan/{}/{case}", network.name));
            let result = caught(|| script(&mut outcome));
            let expected = expect.iter().find(|e| outcome.case.starts_with(e.prefix));
            match (result, expected) {
                (Ok(Err(ExecError::Kernel(KernelError::Unsupported { .. }))), Some(e)) => {
                    outcome.unsupported = Some(e.reason.into());
                }
                (Ok(_), Some(e)) => outcome.failures.push(Failure::Supported { reason: e.reason.into() }),
                (Ok(Ok(())), None) => {}
                (Ok(Err(error)), None) => outcome.failures.push(Failure::Error(error.to_string())),
                (Err(message), _) => outcome.failures.push(Failure::Panic(message)),
            }
            outcomes.push(outcome);
        };
        for (i, (name, marking)) in network.markings().into_iter().enumerate() {
            let rule = rules()[i % rules().len()];
            let want = Script::in_f64(&network, &marking, rule, false);
            let accumulated = Script::in_f64(&network, &marking, rule, true);
            for (passes, options) in passes() {
                let want = if options.accumulate { &accumulated } else { &want };
                run(format!("{name}/{passes}"), &|outcome| {
                    let want = want.as_ref().map_err(Clone::clone)?;
                    let phase = Phase { marking: marking.clone(), loss: network.loss, options };
                    want.compare(outcome, kernels, &network, phase, rule, tolerance)
                });
            }
            // Not with a rule that limits all gradients together: they are never together.
            if !matches!(rule, Rule::Lamb { .. }) {
                run(format!("{name}/used up as made"), &|outcome| {
                    let want = want.as_ref().map_err(Clone::clone)?;
                    want.compare_stepped(outcome, kernels, &network, &marking, rule, tolerance)
                });
            }
            for (case, options) in [
                ("from the cut", Options::default()),
                ("from the cut, in parts of the batch", Options::default().packing(true).in_parts(Some(0))),
            ] {
                run(format!("{name}/{case}"), &|outcome| {
                    let phase = Phase { marking: marking.clone(), loss: network.loss, options };
                    from_the_cut(outcome, kernels, &network, phase, tolerance)
                });
            }
        }
        run("thawing".into(), &|outcome| thawing(outcome, kernels, &network, tolerance));
    }
    let matches_none = |e: &&Expectation| !outcomes.iter().any(|o| o.case.starts_with(e.prefix));
    let stale = expect.iter().filter(matches_none).map(|e| e.prefix.to_string()).collect();
    Report { device: kernels.device(), outcomes, stale }
}

/// The optional passes that are tried.
fn passes() -> Vec<(&'static str, Options)> {
    let with = |change: fn(&mut Options)| {
        let mut options = Options::raw();
        change(&mut options);
        options
    };
    vec![
        ("raw", Options::raw()),
        ("folded", with(|o| o.fold = true)),
        ("fused", with(|o| o.fuse = true)),
        ("in shared slots", with(|o| o.share = true)),
        ("in pieces of one buffer", with(|o| (o.share, o.pack) = (true, true))),
        ("norms again", with(|o| (o.fuse, o.share, o.renorm) = (true, true, true))),
        ("folded and fused", with(|o| (o.fold, o.fuse) = (true, true))),
        ("all passes", Options::default()),
        ("all passes, packed", Options::default().packing(true)),
        ("all passes, in parts of the batch", Options::default().packing(true).in_parts(Some(0))),
        ("all passes, gradients added up", Options::default().accumulating()),
        ("computed again", Options::raw().recomputing()),
        ("all passes, computed again", Options::default().recomputing().packing(true)),
    ]
}

/// The update rules that are tried. `eps` is large: a gradient that is 0 but for rounding has no sign.
fn rules() -> [Rule; 5] {
    [
        Rule::RmsProp { alpha: 0.9, eps: 1e-2, momentum: 0.9, centered: true },
        Rule::Adam { beta1: 0.9, beta2: 0.99, eps: 1e-2, decoupled: true },
        Rule::Sgd { momentum: 0.9, nesterov: true },
        Rule::Lamb { beta1: 0.9, beta2: 0.99, eps: 1e-2, max_grad_norm: Some(0.1) },
        Rule::RmsProp { alpha: 0.99, eps: 1e-1, momentum: 0.0, centered: false },
    ]
}

/// The parameters that train, each at a rate of its own.
fn rates(marking: &Marking) -> Vec<Rate> {
    let rate = |param: ParamId| Rate { param, lr: 0.02 / (1 + param.index() % 3) as f32, weight_decay: 0.01 };
    marking.params.iter().map(rate).collect()
}

/// What two steps compute: `infer, step, infer, apply, step, apply, infer`. In the middle, the running statistics have
/// changed and the weights have not.
struct Script {
    predictions: Vec<Vec<f64>>,
    steps: Vec<Step>,
    params: Vec<Vec<f64>>,
}

impl Script {
    /// On the raw plan over the oracle. With `accumulate`, each step adds up the gradients of two batches.
    fn in_f64(network: &Network, marking: &Marking, rule: Rule, accumulate: bool) -> Result<Self, ExecError> {
        let mut reference = Reference::new(network);
        let mut steps = Vec::new();
        let mut predictions = vec![reference.infer(&network.batch(0, network.n))?];
        for at in 0..2 {
            let mut step = reference.step(marking, &network.batch(at, network.n))?;
            if accumulate {
                let more = reference.step(marking, &network.batch(at + 10, network.n))?;
                for ((_, sum), (_, grad)) in step.grads.iter_mut().zip(more.grads) {
                    sum.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
                }
                (step.loss, step.hits) = (more.loss, more.hits);
            }
            if at == 0 {
                predictions.push(reference.infer(&network.batch(1, network.n))?);
            }
            reference.update(rule, &rates(marking), &step);
            steps.push(step);
        }
        predictions.push(reference.infer(&network.batch(0, network.n))?);
        Ok(Self { predictions, steps, params: reference.params })
    }

    /// The same on a session that uses each gradient up as soon as it is made; the gradients can be asked for all the same.
    fn compare_stepped<K: Kernels>(
        &self,
        outcome: &mut Outcome,
        kernels: &Arc<K>,
        network: &Network,
        marking: &Marking,
        rule: Rule,
        tolerance: f64,
    ) -> Result<(), ExecError> {
        let mut session = open(kernels, network)?;
        let options = Options::default().applying(true).packing(true);
        session.begin(Phase { marking: marking.clone(), loss: network.loss, options })?;
        for (at, want) in self.steps.iter().enumerate() {
            let batch = network.batch(at, network.n);
            let got = session.step(&on_host(&batch), rule, &rates(marking))?;
            let kept = session.grads()?.len();
            outcome.compare(&format!("gradients kept in step {at}"), &[kept as f32], &[0.0], 0.0);
            outcome.compare(&format!("step {at}: the loss"), &[got.loss as f32], &[want.loss], tolerance);
        }
        outcome.compare_params(&session, &self.params, tolerance)?;
        let batch = network.batch(0, network.n);
        let got = session.infer(batch.n, Images::Array(&batch.images))?;
        outcome.compare("the last prediction", &got, &self.predictions[2], tolerance);
        session.set_params(&network.params())?;
        let got = train(&mut session, &batch)?;
        outcome.compare_step(&network.graph, "gradients asked for", got, &session, &self.steps[0], tolerance)
    }

    /// The same on a session.
    fn compare<K: Kernels>(
        &self,
        outcome: &mut Outcome,
        kernels: &Arc<K>,
        network: &Network,
        phase: Phase,
        rule: Rule,
        tolerance: f64,
    ) -> Result<(), ExecError> {
        let (marking, accumulate) = (phase.marking.clone(), phase.options.accumulate);
        let mut session = open(kernels, network)?;
        session.begin(phase)?;
        let infer = |outcome: &mut Outcome, session: &mut Interpreter<K>, at: usize, batch: usize| {
            let batch = network.batch(batch, network.n);
            let got = session.infer(batch.n, Images::Array(&batch.images))?;
            outcome.compare(&format!("prediction {at}"), &got, &self.predictions[at], tolerance);
            Ok::<_, ExecError>(())
        };
        infer(outcome, &mut session, 0, 0)?;
        for (at, want) in self.steps.iter().enumerate() {
            let mut got = train(&mut session, &network.batch(at, network.n))?;
            if accumulate {
                got = train(&mut session, &network.batch(at + 10, network.n))?;
            }
            outcome.compare_step(&network.graph, &format!("step {at}"), got, &session, want, tolerance)?;
            if at == 0 {
                infer(outcome, &mut session, 1, 1)?;
            }
            session.apply(rule, &rates(&marking))?;
        }
        infer(outcome, &mut session, 2, 0)?;
        outcome.compare_params(&session, &self.params, tolerance)
    }
}

/// A step on the features at the cut is the step on the images, and so is what the stages behind it put out.
fn from_the_cut<K: Kernels>(
    outcome: &mut Outcome,
    kernels: &Arc<K>,
    network: &Network,
    phase: Phase,
    tolerance: f64,
) -> Result<(), ExecError> {
    let batch = network.batch(0, network.n);
    let mut reference = Reference::new(network);
    let mut session = open(kernels, network)?;
    session.begin(phase.clone())?;
    let features = session.features(batch.n, Images::Array(&batch.images))?;
    let stages = reference.stages(&batch)?;
    let whole = session.stages(batch.n, Images::Array(&batch.images))?;
    let behind = session.stages(batch.n, Images::Features(&features))?;
    outcome.compare("the number of stages", &[whole.len() as f32], &[stages.len() as f64], 0.0);
    let last = behind.last().is_some_and(|s| !s.is_empty());
    outcome.compare("the last stage from the cut", &[f32::from(last)], &[1.0], 0.0);
    for (i, want) in stages.iter().enumerate() {
        outcome.compare(&format!("stage {i}"), &whole[i], want, tolerance);
        if !behind[i].is_empty() {
            outcome.compare(&format!("stage {i} from the cut"), &behind[i], want, tolerance);
        }
    }
    let want = reference.step(&phase.marking, &batch)?;
    // Other images in between: nothing of the first may be left on the device. They leave traces in running statistics.
    train(&mut session, &network.batch(5, network.n))?;
    session.set_params(&network.params())?;
    let got =
        session.forward_backward(&TrainBatch { images: Images::Features(&features), ..on_host(&batch) })?;
    outcome.compare_step(&network.graph, "step", (got.loss, got.hits), &session, &want, tolerance)?;
    outcome.compare_params(&session, &reference.params, tolerance)
}

/// One session through a gradual unfreezing and back, with a smaller batch in every phase: weights, running statistics
/// and optimizer state stay as phases come and go.
fn thawing<K: Kernels>(
    outcome: &mut Outcome,
    kernels: &Arc<K>,
    network: &Network,
    tolerance: f64,
) -> Result<(), ExecError> {
    let rule = rules()[0];
    let mut reference = Reference::new(network);
    let mut session = open(kernels, network)?;
    let markings = network.markings();
    for (phase, at) in [0, 1, 2, 0].into_iter().enumerate() {
        let (name, marking) = &markings[at];
        let options = Options::default();
        session.begin(Phase { marking: marking.clone(), loss: network.loss, options })?;
        for (step, n) in [network.n, network.n - 1].into_iter().enumerate() {
            let batch = network.batch(2 * phase + step, n);
            let mut want = reference.step(marking, &batch)?;
            let got = train(&mut session, &batch)?;
            let what = format!("phase {phase} ({name}), batch of {n}");
            outcome.compare_step(&network.graph, &what, got, &session, &want, tolerance)?;
            // Now far below the norm, now above it, now by value.
            let norm = want.norm();
            let clip = match (2 * phase + step) % 3 {
                0 => Clip::Norm((norm * 0.3) as f32),
                1 => Clip::Norm((norm * 2.0) as f32),
                _ => Clip::Value((norm * 0.01) as f32),
            };
            want.clip(clip);
            let got = [session.clip(clip)? as f32, session.grad_norm()? as f32];
            outcome.compare(&format!("{what}: norms"), &got, &[norm, want.norm()], tolerance);
            reference.update(rule, &rates(marking), &want);
            session.apply(rule, &rates(marking))?;
        }
    }
    outcome.compare_params(&session, &reference.params, tolerance)
}

fn open<K: Kernels>(kernels: &Arc<K>, network: &Network) -> Result<Interpreter<K>, ExecError> {
    Interpreter::new(Arc::clone(kernels), Arc::new(network.graph.clone()), &network.params())
}

fn on_host(batch: &Batch) -> TrainBatch<'_> {
    let images = Images::Array(&batch.images);
    let (targets, weights, keys) = (&*batch.targets, &*batch.weights, &*batch.keys);
    TrainBatch { n: batch.n, images, targets, weights, keys }
}

fn train(session: &mut dyn Session, batch: &Batch) -> Result<(f64, usize), ExecError> {
    let got = session.forward_backward(&on_host(batch))?;
    Ok((got.loss, got.hits))
}

impl Outcome {
    /// Loss, hits and every gradient of a step.
    fn compare_step(
        &mut self,
        graph: &Graph,
        what: &str,
        (loss, hits): (f64, usize),
        session: &dyn Session,
        want: &Step,
        tolerance: f64,
    ) -> Result<(), ExecError> {
        self.compare(&format!("{what}: the loss"), &[loss as f32], &[want.loss], tolerance);
        self.compare(&format!("{what}: hits"), &[hits as f32], &[want.hits], 0.0);
        let got = session.grads()?;
        let names = |(id, _): &(ParamId, _)| graph.param(*id).name.clone();
        if !got.iter().map(|(name, _)| name.clone()).eq(want.grads.iter().map(names)) {
            let what = format!("{what}: the session has other gradients than those of what trains");
            self.failures.push(Failure::Error(what));
            return Ok(());
        }
        // A gradient that is 0 in exact arithmetic (a bias before a normalisation, say) is measured by the largest.
        let largest = want.grads.iter().flat_map(|(_, g)| g).fold(0.0_f64, |m, g| m.max(g.abs()));
        for ((name, got), (_, want)) in got.iter().zip(&want.grads) {
            let what = format!("{what}: the gradient of {name}");
            self.compare_to(&what, got.data(), want, tolerance, largest * 1e-2);
        }
        Ok(())
    }

    /// Weights and running statistics.
    fn compare_params(
        &mut self,
        session: &dyn Session,
        want: &[Vec<f64>],
        tolerance: f64,
    ) -> Result<(), ExecError> {
        for ((name, got), want) in session.params()?.iter().zip(want) {
            self.compare(&format!("{name} at the end"), got.data(), want, tolerance);
        }
        Ok(())
    }
}
