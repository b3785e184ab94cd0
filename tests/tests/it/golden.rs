//! The networks against torchvision and the package of EfficientNet-Lite0: evaluation, gradients, running statistics, a three-stage fine-tuning.
//!
//! `tests/golden/make_golden.py` made the files and says how weights, inputs and labels are defined. There are two for
//! each network: torchvision's results in f32, and in f64 from the same numbers. Where a ReLU of a deep network flips by
//! rounding, torchvision's own f32 gradients leave their f64 values by more than the bound that is asked here: sums of 48
//! of ResNet50's and 91 of MobileNetV2's gradients, by up to 3 % of the gradient's norm; and 17 gradients of MobileNetV2
//! are zero but for rounding. So a result must lie within the bound of what lies between the two.
//! EfficientNet-Lite0's seed was chosen: of four tried, two leave the bounds, by up to 7 % of one gradient's norm. It is
//! rounding that flips a ReLU6: in f64 both kinds of seed agree to 1e-5 (`exact.rs`).
//! ResNet50's gradients are compared without Winograd's convolutions, whose rounding flips ReLUs of its own.
//! MobileNetV2 has a second seed (`other`), the first of six tried with which torchvision's own f32 gradients stay within
//! the bound of its f64 ones: at 0.08 of it, where four seeds leave it 7- to 39-fold. There the bound is met outright, on a
//! GPU too, which adds in another order and so flips other ReLU6s of the first seed.

use std::collections::HashMap;
use std::sync::Arc;

use defrost::device::Device;
use defrost::exec::{Engine, Images, Options, Phase, Rate, Rule, Session, TrainBatch};
use defrost::graph::{Graph, Loss, Marking, ParamId, ParamMask};
use defrost::zoo::{Arch, Head, ModelSpec};
use defrost_conformance::{det, golden_params};
use serde_json::Value;

/// The devices that are held to the bounds themselves.
const CPUS: &[&str] = &[
    "cpu",
    #[cfg(feature = "candle")]
    "candle:cpu",
];

/// What a GPU may be off by, in terms of what a CPU may.
#[cfg(any(feature = "wgpu", feature = "candle"))]
const GPU: f64 = 10.0;

/// The last blocks of MobileNetV2 and of EfficientNet-Lite0, thawed in the second stage.
const MOBILE: &[&str] = &["features.14", "features.15", "features.16", "features.17", "features.18"];
const LITE: &[&str] = &["_blocks.13.", "_blocks.14.", "_blocks.15.", "_conv_head.", "_bn1."];
const VGG: &[&str] = &["classifier.", "features.24", "features.26", "features.28"];

struct Golden {
    /// torchvision in f32.
    json: Value,
    /// torchvision in f64.
    exact: Value,
    graph: Arc<Graph>,
    batch: Vec<f32>,
    n: usize,
    engine: Arc<dyn Engine>,
    /// How much more than a CPU the engine may be off by.
    scale: f64,
}

impl Golden {
    /// For the device called `device`, which computes on the CPU.
    fn cpu(device: &str, name: &str) -> Self {
        Self::on(Device::from_name(device).unwrap().into(), 1.0, name)
    }

    /// The golden in the files called `name`, for an engine that may be off by `scale` times what a CPU may.
    fn on(engine: Arc<dyn Engine>, scale: f64, name: &str) -> Self {
        let read = |file: String| -> Value {
            let path = format!("{}/golden/{file}", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let (json, exact) = (read(format!("{name}-64.json")), read(format!("{name}-64-f64.json")));
        let arch: Arch = json["arch"].as_str().unwrap().parse().unwrap();
        let spec = ModelSpec::new(arch, json["classes"].as_u64().unwrap() as usize)
            .with_image_size(json["input"][2].as_u64().unwrap() as usize)
            .with_head(Head::Linear { dropout: 0.0 });
        let shape: Vec<_> =
            json["input"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let seed = json["seed"].as_str().unwrap().to_owned();
        let batch = det(&format!("{seed}/input"), shape.clone(), 0.0, 2.0).into_data();
        Self { graph: Arc::new(spec.build().unwrap()), batch, n: shape[0], json, exact, engine, scale }
    }

    fn open(&self) -> Box<dyn Session> {
        let weights = golden_params(&self.graph, self.json["seed"].as_str().unwrap());
        self.engine.open(Arc::clone(&self.graph), &weights).unwrap()
    }

    /// One-hot rows divided by the batch: the mean of the cross-entropies.
    fn targets(&self) -> Vec<f32> {
        let classes = self.graph.classes();
        let mut rows = vec![0.0; self.n * classes];
        for (i, label) in self.json["labels"].as_array().unwrap().iter().enumerate() {
            rows[i * classes + label.as_u64().unwrap() as usize] = 1.0 / self.n as f32;
        }
        rows
    }

    fn step(&self, session: &mut dyn Session) -> f64 {
        let targets = self.targets();
        let keys = vec![0.0; 2 * self.n];
        let batch = TrainBatch {
            n: self.n,
            images: Images::Array(&self.batch),
            targets: &targets,
            weights: &[],
            keys: &keys,
        };
        session.forward_backward(&batch).unwrap().loss
    }

    fn phase(&self, choose: impl Fn(&str) -> bool, options: Options) -> Phase {
        let mask = ParamMask::of(&self.graph, |id: ParamId| choose(&self.graph.param(id).name));
        Phase { marking: Marking::new(&self.graph, mask), loss: Loss::CrossEntropy, options }
    }

    /// `got` against torchvision: within `bound` of its f32 result, its f64 result or what lies between.
    fn close(&self, what: &str, got: f64, want: &Value, exact: &Value, bound: f64) {
        let (want, exact, bound) = (want.as_f64().unwrap(), exact.as_f64().unwrap(), self.scale * bound);
        let off = (want.min(exact) - got).max(got - want.max(exact)).max(0.0);
        assert!(
            off <= bound,
            "{what}: got {got}, torchvision has {want} in f32 and {exact} in f64: off by {off:.2e}, bound {bound:.2e}"
        );
    }

    /// A loss, relative to itself.
    fn loss(&self, what: &str, got: f64, want: &Value, exact: &Value, tolerance: f64) {
        self.close(what, got, want, exact, tolerance * exact.as_f64().unwrap());
    }

    /// Logits, relative to the largest.
    fn logits(&self, what: &str, got: &[f32], tolerance: f64) {
        let flat = |json: &Value| -> Vec<Value> {
            json[what].as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap().clone()).collect()
        };
        let (want, exact) = (flat(&self.json), flat(&self.exact));
        let scale = exact.iter().map(|v| v.as_f64().unwrap().abs()).fold(0.0, f64::max);
        assert_eq!(want.len(), got.len());
        for (i, got) in got.iter().enumerate() {
            self.close(&format!("{what}[{i}]"), f64::from(*got), &want[i], &exact[i], tolerance * scale);
        }
    }

    /// Sum, norm and first values of each of `got` against the summaries under `what`, relative to each one's norm.
    fn summaries<'a>(&self, what: &str, got: impl Iterator<Item = (&'a str, &'a [f32])>, tolerance: f64) {
        let (all, exact) = (self.json[what].as_object().unwrap(), &self.exact[what]);
        let norm_of = |name: &String| exact[name]["l2"].as_f64().unwrap();
        // What is zero but for rounding has no norm of its own to be measured by.
        let floor = 1e-6 * all.keys().map(norm_of).map(|l2| l2 * l2).sum::<f64>().sqrt();
        let mut seen = 0;
        for (name, data) in got.filter(|(name, _)| all.contains_key(*name)) {
            let (want, exact, values) = (&all[name], &exact[name], || data.iter().map(|v| f64::from(*v)));
            let bound = tolerance * norm_of(&name.to_owned()) + floor;
            let label = |part: &str| format!("{what} of {name}: {part}");
            self.close(
                &label("norm"),
                values().map(|v| v * v).sum::<f64>().sqrt(),
                &want["l2"],
                &exact["l2"],
                bound,
            );
            self.close(&label("sum"), values().sum(), &want["sum"], &exact["sum"], bound);
            for (i, first) in want["first"].as_array().unwrap().iter().enumerate() {
                self.close(&label("first"), f64::from(data[i]), first, &exact["first"][i], bound);
            }
            seen += 1;
        }
        assert_eq!(seen, all.len(), "{what}: not every name was found");
    }

    /// Logits in evaluation, the loss of a step of training and the running statistics after it; the session after that.
    fn evaluation(&self, options: Options) -> Box<dyn Session> {
        let mut session = self.open();
        session.begin(self.phase(|_| true, options)).unwrap();
        self.logits("eval_logits", &session.infer(self.n, Images::Array(&self.batch)).unwrap(), 1e-4);
        let loss = self.step(&mut *session);
        self.loss("train_loss", loss, &self.json["train_loss"], &self.exact["train_loss"], 1e-4);
        let params = session.params().unwrap();
        self.summaries("running", params.iter().map(|(n, t)| (n, t.data())), 1e-4);
        session
    }

    fn evaluation_and_gradients(&self, options: Options) {
        let session = self.evaluation(options);
        let grads = session.grads().unwrap();
        self.summaries("grads", grads.iter().map(|(n, t)| (n.as_str(), t.data())), 1e-3);
    }

    /// Evaluation and gradients; without gradients where `name` is one of `flips`.
    #[cfg(any(feature = "wgpu", feature = "candle"))]
    fn unless_flipped(&self, name: &str, flips: &[&str]) {
        if flips.contains(&name) {
            self.evaluation(Options::default());
        } else {
            self.evaluation_and_gradients(Options::default());
        }
    }

    fn three_stages(&self, head: &str, last: &[&str]) {
        let mut session = self.open();
        let lr = self.json["staged_lr"].as_f64().unwrap() as f32;
        let is_head = |name: &str| name.starts_with(head);
        let is_last = |name: &str| last.iter().any(|p| name.starts_with(p)) && !is_head(name);
        let mut losses = Vec::new();
        for stage in 0..3 {
            let trains = |name: &str| is_head(name) || (stage >= 1 && is_last(name)) || stage == 2;
            session.begin(self.phase(trains, Options::default())).unwrap();
            session.set_optimizer(&[]).unwrap();
            let rate = |id: ParamId| {
                let name = self.graph.param(id).name.as_str();
                let part = if is_head(name) {
                    1.0
                } else if is_last(name) {
                    0.1
                } else {
                    0.01
                };
                Rate { param: id, lr: lr * part, weight_decay: 1e-4 }
            };
            let rates: Vec<_> = self.graph.param_ids().map(rate).collect();
            let before: HashMap<_, _> =
                session.params().unwrap().iter().map(|(n, t)| (n.to_owned(), t.clone())).collect();
            for _ in 0..2 {
                losses.push(self.step(&mut *session));
                session.reduce().unwrap();
                session.apply(Rule::Sgd { momentum: 0.9, nesterov: false }, &rates).unwrap();
            }
            // What is frozen keeps every bit, running statistics included.
            for (name, value) in session.params().unwrap().iter().filter(|(name, _)| !trains(name)) {
                assert_eq!(&before[name], value, "{name} is frozen in stage {stage}");
            }
        }
        let (want, exact) = (&self.json["staged_losses"], &self.exact["staged_losses"]);
        assert_eq!(want.as_array().unwrap().len(), losses.len());
        for (i, loss) in losses.into_iter().enumerate() {
            self.loss(&format!("staged_losses[{i}]"), loss, &want[i], &exact[i], 1e-3);
        }
        self.logits("staged_eval_logits", &session.infer(self.n, Images::Array(&self.batch)).unwrap(), 1e-3);
        let params = session.params().unwrap();
        self.summaries("staged_running", params.iter().map(|(n, t)| (n, t.data())), 1e-3);
    }
}

#[test]
fn resnet18() {
    for cpu in CPUS {
        let golden = Golden::cpu(cpu, "resnet18");
        golden.evaluation_and_gradients(Options::default());
        golden.evaluation_and_gradients(Options::raw());
        golden.three_stages("fc.", &["layer4."]);
    }
}

#[test]
fn resnet50() {
    for cpu in CPUS {
        Golden::cpu(&format!("{cpu},exact"), "resnet50").evaluation_and_gradients(Options::default());
        Golden::cpu(cpu, "resnet50").three_stages("fc.", &["layer4."]);
    }
}

#[test]
fn mobilenet_v2() {
    for cpu in CPUS {
        let golden = Golden::cpu(cpu, "mobilenet_v2");
        golden.evaluation_and_gradients(Options::default());
        golden.evaluation_and_gradients(Options::raw());
        Golden::cpu(cpu, "mobilenet_v2-other").evaluation_and_gradients(Options::default());
        golden.three_stages("classifier.", MOBILE);
    }
}

#[test]
fn vgg16() {
    for cpu in CPUS {
        let golden = Golden::cpu(cpu, "vgg16");
        golden.evaluation_and_gradients(Options::default());
        golden.three_stages("classifier.6.", VGG);
    }
}

#[test]
fn efficientnet_lite0() {
    for cpu in CPUS {
        let golden = Golden::cpu(cpu, "efficientnet_lite0");
        golden.evaluation_and_gradients(Options::default());
        golden.evaluation_and_gradients(Options::raw());
        golden.three_stages("_fc.", LITE);
    }
}

/// Both residual networks on what computes as a GPU does.
#[cfg(any(feature = "wgpu", feature = "candle"))]
pub(crate) fn residual_networks(engine: &Arc<dyn Engine>) {
    let golden = Golden::on(engine.clone(), GPU, "resnet18");
    golden.evaluation_and_gradients(Options::default());
    golden.evaluation_and_gradients(Options::raw());
    golden.three_stages("fc.", &["layer4."]);
    let golden = Golden::on(engine.clone(), GPU, "resnet50");
    golden.evaluation_and_gradients(Options::default());
    golden.three_stages("fc.", &["layer4."]);
}

/// MobileNetV2 and EfficientNet-Lite0; gradients where no ReLU6 flips by rounding, all else of both seeds of MobileNetV2.
/// `flips` names goldens in which one flips on this engine: they have no gradients.
#[cfg(any(feature = "wgpu", feature = "candle"))]
pub(crate) fn mobile_networks(engine: &Arc<dyn Engine>, flips: &[&str]) {
    Golden::on(engine.clone(), GPU, "mobilenet_v2-other").unless_flipped("mobilenet_v2-other", flips);
    let golden = Golden::on(engine.clone(), GPU, "mobilenet_v2");
    golden.evaluation(Options::raw());
    golden.three_stages("classifier.", MOBILE);
    let golden = Golden::on(engine.clone(), GPU, "efficientnet_lite0");
    golden.unless_flipped("efficientnet_lite0", flips);
    golden.three_stages("_fc.", LITE);
}

/// As [`mobile_networks`].
#[cfg(any(feature = "wgpu", feature = "candle"))]
pub(crate) fn vgg(engine: &Arc<dyn Engine>, flips: &[&str]) {
    let golden = Golden::on(engine.clone(), GPU, "vgg16");
    golden.unless_flipped("vgg16", flips);
    golden.three_stages("classifier.6.", VGG);
}
