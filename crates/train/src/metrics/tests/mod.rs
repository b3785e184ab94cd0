//! Metrics against tables of scikit-learn and torchmetrics (`make_tables.py`).

use std::sync::LazyLock;

use defrost_policy::{ClassWeights, Loss, Metric, Task};
use serde_json::Value;

use super::*;
use crate::{Outputs, outputs::Truth};

static TABLES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("tables.json")).expect("the script wrote JSON"));

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|v| v as f32).collect()
}

fn near(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-9 * want.abs().max(1.0)
}

fn cases(name: &str, truth: impl Fn(&Value) -> Truth) -> Vec<(Outputs, &'static Value)> {
    let case = |case: &'static Value| {
        let (truth, classes) = (truth(case), case["classes"].as_u64().unwrap() as usize);
        let logits = floats(&case["logits"]);
        let samples = (0..logits.len() / classes).collect();
        (Outputs { classes, samples, truth, logits, scale: None }, case)
    };
    TABLES[name].as_array().unwrap().iter().map(case).collect()
}

/// Every metric of the table, and that each metric of the task is in some table.
fn agrees(cases: &[(Outputs, &Value)], loss: &Loss, task: Task) {
    let mut seen = Vec::new();
    for (outputs, case) in cases {
        assert_eq!(outputs.task(), task);
        let metrics = outputs.metrics(loss, &[]);
        for (name, want) in case["want"].as_object().unwrap() {
            let metric = *task.metrics().iter().find(|m| m.name() == name).unwrap();
            let (got, want) = (metrics.get(metric), want.as_f64().unwrap());
            assert!(got.is_some_and(|got| near(got, want)), "{name}: {got:?} instead of {want}");
            seen.push(metric);
        }
    }
    for metric in task.metrics().iter().filter(|m| **m != Metric::TrainLoss) {
        assert!(seen.contains(metric), "{metric} is in no table");
    }
}

#[test]
fn one_class_an_image() {
    let labels =
        |case: &Value| Truth::Classes(numbers(&case["labels"]).into_iter().map(|v| v as u32).collect());
    let cases = cases("classification", labels);
    agrees(&cases, &Loss::default(), Task::Classification);
    for (outputs, case) in &cases {
        let focal = Loss::Focal { gamma: 2.0, class_weights: ClassWeights::Balanced };
        let loss = outputs.metrics(&focal, &[]).get(Metric::Loss).unwrap();
        assert!(near(loss, case["focal"].as_f64().unwrap()), "focal {loss}");
        let (each, confusion) = (&case["per_class"], outputs.confusion());
        for (class, row) in confusion.iter().enumerate() {
            let row: Vec<_> = row.iter().map(|&n| n as f64).collect();
            assert_eq!(row, numbers(&each["confusion"][class]));
        }
        for (class, counts) in counts_of_confusion(&confusion).into_iter().enumerate() {
            let want = |key: &str| numbers(&each[key])[class];
            let got = counts.scores();
            assert!(
                near(got.precision, want("precision")) && near(got.recall, want("recall")),
                "class {class}"
            );
            assert!(near(got.f1, want("f1")) && counts.images as f64 == want("images"), "class {class}");
        }
    }
}

#[test]
fn several_labels_an_image() {
    let cases = cases("labels", |case| Truth::Labels(floats(&case["targets"])));
    agrees(&cases, &Loss::BinaryCrossEntropy { label_smoothing: 0.1 }, Task::MultiLabel);
    for (outputs, case) in &cases {
        for (key, score) in
            [("average_precision", average_precision as fn(&[(f64, bool)]) -> _), ("auc", roc_auc)]
        {
            for (class, got) in outputs.per_class(score).into_iter().enumerate() {
                let want = case[key][class].as_f64();
                assert!(
                    got.zip(want).map_or(got == want, |(g, w)| near(g, w)),
                    "{key} {class}: {got:?} {want:?}"
                );
            }
        }
    }
}

#[test]
fn numbers_an_image() {
    let cases = cases("values", |case| Truth::Values(floats(&case["targets"])));
    agrees(&cases, &Loss::MeanSquared {}, Task::Regression);
    for (outputs, case) in &cases {
        let huber = outputs.metrics(&Loss::Huber { delta: 1.5 }, &[]).get(Metric::Loss).unwrap();
        assert!(near(huber, case["huber"].as_f64().unwrap()), "huber {huber}");
        for (column, error) in outputs.value_errors().iter().enumerate() {
            let want = |key: &str| numbers(&case[key])[column];
            assert!(near(error.mae, want("mae")) && near(error.r2, want("r2")), "{error:?}");
        }
    }
}

#[test]
fn orders_with_ties_and_without_a_class() {
    // sklearn: average_precision_score([1, 0, 1, 0], [.9, .8, .8, .1]) = 0.8333…, roc_auc_score = 0.875
    let answers = [(0.8, false), (0.9, true), (0.1, false), (0.8, true)];
    assert!(near(average_precision(&answers).unwrap(), 0.5 + 0.5 * 2.0 / 3.0));
    assert!(near(roc_auc(&answers).unwrap(), 0.875));
    assert_eq!((roc_auc(&[(0.5, true)]), average_precision(&[(0.5, false)])), (None, None));
    assert_eq!(mean([None, Some(1.0), Some(0.0)]), Some(0.5));
}

#[test]
fn images_without_a_class_do_not_count() {
    let outputs = Outputs {
        classes: 2,
        samples: vec![0, 1],
        truth: Truth::Classes(vec![1, defrost_data::NO_LABEL]),
        logits: vec![0.0, 1.0, 5.0, 0.0],
        scale: None,
    };
    let metrics = outputs.metrics(&Loss::default(), &[]);
    assert_eq!((metrics.get(Metric::Accuracy), metrics.get(Metric::Top5)), (Some(1.0), None));
    assert_eq!(outputs.metrics(&Loss::default(), &[Metric::Top5]).get(Metric::Top5), Some(1.0));
    let none = Outputs { truth: Truth::Classes(vec![defrost_data::NO_LABEL; 2]), ..outputs };
    assert_eq!(none.metrics(&Loss::default(), &[]), defrost_policy::Metrics::default());
}
