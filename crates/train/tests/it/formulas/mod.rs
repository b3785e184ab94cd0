//! Losses, their gradients, optimizers and limits on gradients as recipes name them, against what PyTorch's and timm's make
//! of the same numbers (`make_tables.py`).

use std::sync::Arc;

use defrost_data::{Dataset, TargetKind};
use defrost_exec::{Engine, Images, Options, Phase, Rate, Session, TrainBatch};
use defrost_graph::{Graph, GraphBuilder, Init, Marking, ParamKind, ParamMask, ParamStore, op};
use defrost_policy::{Clip, Recipe};
use defrost_tensor::{HostTensor, Shape4};
use defrost_train::{Rows, Targets, device_loss, rule};
use serde::Deserialize;

use crate::tiny::engine;

/// What f32 may be off by after 25 steps, against values of about 1.
const TOLERANCE: f64 = 5e-5;

#[derive(Deserialize)]
struct Tables {
    classes: Vec<String>,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    labels: Vec<u32>,
    several: Vec<f32>,
    numbers: Vec<f32>,
    runs: Vec<Run>,
    average: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Run {
    loss: String,
    targets: String,
    optimizer: String,
    clip: Option<String>,
    lr: f64,
    losses: Vec<f64>,
    grads: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
}

fn tables() -> Tables {
    serde_json::from_str(include_str!("tables.json")).unwrap()
}

/// `y = x Wᵀ + b`, from five numbers to four.
fn linear() -> Arc<Graph> {
    let mut b = GraphBuilder::new("linear", Shape4::new(1, 5, 1, 1));
    b.stage("head", true);
    let init = Init::Constant(0.0);
    let weight = b.param("weight", [4, 5], ParamKind::LinearWeight, init).unwrap();
    let bias = b.param("bias", [4], ParamKind::Bias, init).unwrap();
    let op = op::Linear { in_features: 5, out_features: 4, weight, bias: Some(bias) };
    b.node("linear", op, &[Graph::INPUT]).unwrap();
    Arc::new(b.finish())
}

impl Tables {
    fn open(&self, loss: defrost_graph::Loss) -> (Arc<Graph>, Box<dyn Session>) {
        let graph = linear();
        let mut params = ParamStore::zeros(&graph);
        params.set("weight", HostTensor::new(vec![4, 5], self.weight.clone()).unwrap()).unwrap();
        params.set("bias", HostTensor::vector(self.bias.clone())).unwrap();
        let mut session = engine().open(Arc::clone(&graph), &params).unwrap();
        let marking = Marking::new(&graph, ParamMask::all(&graph));
        session.begin(Phase { marking, loss, options: Options::default() }).unwrap();
        (graph, session)
    }

    fn data(&self, targets: &str) -> Dataset {
        let n = self.labels.len();
        let data =
            Dataset::from_arrays(vec![0; n], [1, 1, 1], self.labels.clone(), self.classes.clone()).unwrap();
        let with = |kind, rows: &Vec<f32>| {
            data.clone().with_targets(kind, self.classes.clone(), rows.clone()).unwrap()
        };
        match targets {
            "several" => with(TargetKind::Classes, &self.several),
            "numbers" => with(TargetKind::Values, &self.numbers),
            _ => data,
        }
    }

    /// The rows of all images for a recipe's loss.
    fn rows(&self, recipe: &Recipe, targets: &str) -> Rows {
        let data = self.data(targets);
        let samples: Vec<_> = (0..data.len()).collect();
        let mut rows = Rows::default();
        let divisor = Targets::new(recipe, &data).unwrap().samples(&data, &samples, &mut rows);
        rows.divide(divisor);
        rows
    }

    fn step(&self, session: &mut dyn Session, rows: &Rows) -> f64 {
        let n = self.labels.len();
        let (images, keys) = (Images::Array(&self.x), vec![0.0; 2 * n]);
        let batch = TrainBatch { n, images, targets: &rows.targets, weights: &rows.weights, keys: &keys };
        session.forward_backward(&batch).unwrap().loss
    }
}

/// A recipe with this loss and optimizer; numbers are learned as they are.
fn recipe(loss: &str, optimizer: &str, clip: Option<&str>) -> Recipe {
    let clip = clip.map(|clip| format!("clip = {clip}")).unwrap_or_default();
    let text = format!(
        "monitor = \"loss\"\nloss = {loss}\n[data]\nstandardize = false\n[[phase]]\nname = \"all\"\nepochs = 1\ntrain = \"all\"\n\
         optimizer = {optimizer}\n{clip}\n"
    );
    Recipe::from_toml(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn far<'a>(got: impl IntoIterator<Item = &'a f32>, want: &[f64]) -> f64 {
    let apart = |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs() / want.abs().max(1.0);
    got.into_iter().zip(want).map(apart).fold(0.0, f64::max)
}

#[test]
fn recipes_train_as_pytorch_and_timm_do() {
    let tables = tables();
    assert!(tables.runs.len() > 30);
    for run in &tables.runs {
        let what = format!("{} by {} within {:?}", run.loss, run.optimizer, run.clip);
        let recipe = recipe(&run.loss, &run.optimizer, run.clip.as_deref());
        let (graph, mut session) = tables.open(device_loss(&recipe.loss).unwrap());
        let rows = tables.rows(&recipe, &run.targets);
        let optimizer = &recipe.phases[0].optimizer;
        let rate =
            |param, weight_decay: f64| Rate { param, lr: run.lr as f32, weight_decay: weight_decay as f32 };
        let decays = [optimizer.weight_decay(), 0.0];
        let rates: Vec<_> = graph.param_ids().zip(decays).map(|(id, decay)| rate(id, decay)).collect();
        for (step, want) in run.losses.iter().enumerate() {
            let loss = tables.step(&mut *session, &rows);
            assert!(
                (loss - want).abs() < TOLERANCE * want.max(1.0),
                "{what}, step {step}: {loss}, not {want}"
            );
            if step == 0 {
                for ((name, got), want) in session.grads().unwrap().iter().zip(&run.grads) {
                    let apart = far(got.data(), want);
                    assert!(apart < 1e-6, "{what}: the gradient of {name} is off by {apart}");
                }
            }
            match recipe.phases[0].clip {
                Some(Clip::Norm(max)) => drop(session.clip(defrost_exec::Clip::Norm(max as f32)).unwrap()),
                Some(Clip::Value(max)) => drop(session.clip(defrost_exec::Clip::Value(max as f32)).unwrap()),
                _ => {}
            }
            session.apply(rule(optimizer, None).unwrap(), &rates).unwrap();
        }
        for ((name, got), want) in session.params().unwrap().iter().zip(&run.params) {
            let apart = far(got.data(), want);
            assert!(apart < TOLERANCE, "{what}: {name} is off by {apart} at the end");
        }
    }
}

#[test]
fn the_average_of_weights_is_pytorchs() {
    let tables = tables();
    let recipe = recipe("\"cross_entropy\"", "{ kind = \"sgd\" }", None);
    let (graph, mut session) = tables.open(device_loss(&recipe.loss).unwrap());
    let rows = tables.rows(&recipe, "labels");
    let start = session.params().unwrap();
    session.average(0.5).unwrap();
    assert_eq!(session.averaged().unwrap(), None, "there is none yet");
    session.set_average(Some(&start)).unwrap();
    let rate = |param| Rate { param, lr: 0.1, weight_decay: 0.0 };
    let rates: Vec<_> = graph.param_ids().map(rate).collect();
    for _ in 0..tables.runs[0].losses.len() {
        tables.step(&mut *session, &rows);
        session.apply(rule(&recipe.phases[0].optimizer, None).unwrap(), &rates).unwrap();
        session.average(0.1).unwrap();
    }
    let (live, mean) = (session.params().unwrap(), session.averaged().unwrap().unwrap());
    for ((name, got), want) in mean.iter().zip(&tables.average) {
        let apart = far(got.data(), want);
        assert!(apart < TOLERANCE, "the average of {name} is off by {apart}");
    }
    session.swap_average();
    assert_eq!((session.params().unwrap(), session.averaged().unwrap()), (mean.clone(), Some(live.clone())));
    session.swap_average();
    assert_eq!((session.params().unwrap(), session.averaged().unwrap()), (live, Some(mean)));
    session.set_average(None).unwrap();
    assert_eq!(session.averaged().unwrap(), None);
}
