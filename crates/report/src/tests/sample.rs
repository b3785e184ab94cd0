//! A made-up run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use defrost_train::{
    Decision, Done, Epoch, Event, GroupRate, PhaseStart, Prediction, RetentionStart, StageState, Start, Thaw,
    Validation, class_scores, most_confused, worst_mistakes,
};

/// A made-up run: two phases, a thaw in the second.
pub(super) struct Sample {
    pub(super) classes: Vec<String>,
    /// Validation images of each class.
    pub(super) images: usize,
    pub(super) epochs: [usize; 2],
}

impl Sample {
    pub(super) fn small() -> Self {
        let classes = ["bird", "drink", "meal", "<script>alert(1)</script>"].map(String::from).to_vec();
        Self { classes, images: 20, epochs: [3, 5] }
    }

    /// Numbers that look random and are not.
    pub(super) fn noise(i: usize) -> f64 {
        let x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn validation(&self) -> Validation {
        let n = self.classes.len();
        let mut confusion = vec![vec![0; n]; n];
        let mut predictions = Vec::new();
        for (truth, row) in confusion.iter_mut().enumerate() {
            for i in 0..self.images {
                let at = truth * self.images + i;
                let wrong = Self::noise(at) < 0.25 && n > 1;
                let other = (truth + 1 + (Self::noise(at + 7919) * 3.0) as usize) % n;
                let prediction = if wrong && other != truth { other } else { truth };
                row[prediction] += 1;
                let confidence = 0.4 + 0.6 * Self::noise(at + 104_729) as f32;
                let truth_confidence = if prediction == truth { confidence } else { 1.0 - confidence };
                let path = format!("{truth}/picture-{i}.png");
                predictions.push(Prediction { path, truth, prediction, confidence, truth_confidence });
            }
        }
        let per_class = class_scores(&self.classes, &confusion);
        let mean = |f: fn(&defrost_train::ClassScore) -> f64| per_class.iter().map(f).sum::<f64>() / n as f64;
        let hits: usize = per_class.iter().map(|c| c.hits).sum();
        Validation {
            format: 1,
            checkpoint: "best".into(),
            epoch: Some(6),
            classes: self.classes.clone(),
            images: predictions.len(),
            loss: 0.412,
            accuracy: Some(hits as f64 / predictions.len() as f64),
            top5: (n > 5).then_some(0.95),
            precision: Some(mean(|c| c.precision)),
            recall: Some(mean(|c| c.recall)),
            f1: Some(mean(|c| c.f1)),
            confused: most_confused(&confusion),
            worst: worst_mistakes(&predictions),
            confusion,
            per_class,
            predictions,
            ..Validation::default()
        }
    }

    pub(super) fn stages(trained: usize) -> Vec<StageState> {
        let names = (0..6).map(|i| format!("features.{i}")).chain(["classifier".to_owned()]);
        names
            .enumerate()
            .map(|(i, stage)| {
                let trains = i + trained >= 7;
                let norm =
                    if i == 6 { vec![] } else { vec![if trains { "train" } else { "frozen" }.to_owned()] };
                StageState {
                    stage,
                    params: 1000 * (i + 1),
                    trained: if trains { 1000 * (i + 1) } else { 0 },
                    norm,
                }
            })
            .collect()
    }

    pub(super) fn groups(trained: usize) -> Vec<GroupRate> {
        let stages = Self::stages(trained).into_iter().filter(|s| s.trained > 0);
        stages
            .enumerate()
            .map(|(i, s)| GroupRate { group: s.stage, lr: 1e-3 * 0.4f64.powi((trained - 1 - i) as i32) })
            .collect()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        let [head, all] = self.epochs;
        let mut events = vec![Event::Start(Start {
            format: 1,
            model: "mobilenet_v2".into(),
            device: "cpu, 2 threads".into(),
            seed: 7,
            task: Default::default(),
            classes: self.classes.len(),
            train_images: 4 * self.classes.len() * self.images,
            val_images: self.classes.len() * self.images,
            batch: 32,
            steps: 28,
            phases: 2,
            epochs: head + all,
            resumed: None,
        })];
        let source_accuracy = Some(0.7);
        let retention = RetentionStart { images: 64, source_images: 500, source_accuracy, seconds: 3.0 };
        events.push(Event::Retention(retention));
        for phase in 0..2 {
            let trained = [1, 4][phase];
            events.push(Event::PhaseStart(PhaseStart {
                phase,
                name: ["head", "everything"][phase].into(),
                epochs: self.epochs[phase],
                first_epoch: [0, head][phase],
                stages: Self::stages(trained),
                groups: Self::groups(trained),
                optimizer: "adamw".into(),
                trained: 7000,
                cached: phase == 0,
                cache_reason: "what trains starts at the input".into(),
                cut: "pool".into(),
                flops: 12_300_000_000,
                memory: 410_000_000,
                cache_bytes: 4_500_000,
            }));
            for epoch in 0..self.epochs[phase] {
                let global_epoch = epoch + [0, head][phase];
                if phase == 1 && epoch == 2 {
                    let (what, reason) = ("thaw everything".to_owned(), "epoch 2 of the phase".to_owned());
                    events.push(Event::Decision(Decision { phase, epoch: 1, what, reason }));
                    let (stages, groups) = (Self::stages(7), Self::groups(7));
                    events.push(Event::Thaw(Thaw { phase, epoch, global_epoch, stages, groups }));
                }
                let t = (global_epoch + 1) as f64;
                let trained = if phase == 0 {
                    1
                } else if epoch < 2 {
                    4
                } else {
                    7
                };
                let fade = 1.0 - 0.9 * epoch as f64 / self.epochs[phase] as f64;
                let rates = Self::groups(trained).into_iter().map(|g| GroupRate { lr: g.lr * fade, ..g });
                events.push(Event::Epoch(Epoch {
                    phase,
                    epoch,
                    global_epoch,
                    train_loss: 2.4 / t.powf(0.7),
                    train_accuracy: Some(1.0 - 0.6 / t.sqrt()),
                    val_loss: Some(2.0 / t.powf(0.5) + 0.05 * Self::noise(global_epoch)),
                    val_accuracy: Some(0.82 - 0.4 / t),
                    grad_norm: None,
                    metrics: [
                        ("top5", 0.9),
                        ("drift.features.0", 0.001 * t),
                        ("drift.classifier", 0.01 * t),
                        ("cka.features.0", 1.0 - 0.01 * t),
                        ("source_accuracy", 0.7 - 0.05 * t),
                    ]
                    .map(|(k, v)| (k.to_owned(), v))
                    .into(),
                    rates: rates.collect(),
                    seconds: 11.3,
                    val_seconds: 2.0,
                    retention_seconds: 0.1,
                    wait_seconds: 0.0,
                    images_per_second: 86.0,
                    best: global_epoch == 6,
                }));
            }
        }
        events
            .push(Event::Warning { message: "class \"drink\" has 11 images; others have 90 or more".into() });
        let (best_epoch, best_phase) = (Some(6), Some(1));
        let metric = "accuracy".to_owned();
        events.push(Event::Done(Done {
            best_epoch,
            best_phase,
            loss: Some(0.412),
            accuracy: Some(0.78),
            value: Some(0.78),
            metric,
            epochs: head + all,
            seconds: 130.2,
        }));
        events
    }

    pub(super) fn lines(&self) -> String {
        self.events().iter().fold(String::new(), |mut s, e| {
            let _ = writeln!(s, "{}", serde_json::to_string(e).expect("events are JSON"));
            s
        })
    }

    pub(super) fn write(&self, folder: &Path) {
        let put =
            |name: &str, content: &str| fs::write(folder.join(name), content).expect("a temporary folder");
        put(
            "recipe.toml",
            "name = \"two-stage\"\nseed = 7\n# </code><script>alert(2)</script>\n[model]\narch = \"mobilenet_v2\"\n",
        );
        put("metrics.jsonl", &self.lines());
        put("classes.json", &serde_json::to_string(&self.classes).expect("names are JSON"));
        put("validation.json", &serde_json::to_string(&self.validation()).expect("a validation is JSON"));
    }

    /// Pictures for all predictions, of noise, which JPEG compresses worst.
    pub(super) fn pictures(&self, data: &Path, side: u32) {
        for truth in 0..self.classes.len() {
            let folder = data.join(truth.to_string());
            fs::create_dir_all(&folder).expect("a temporary folder");
            let noise = |x: u32, y: u32, c: u32| {
                (Self::noise((truth as u32 * 31 + y * side * 3 + x * 3 + c) as usize) * 255.0) as u8
            };
            let picture =
                image::RgbImage::from_fn(side, side, |x, y| image::Rgb([0, 1, 2].map(|c| noise(x, y, c))));
            let first = folder.join("picture-0.png");
            picture.save(&first).expect("a temporary folder");
            for i in 1..self.images {
                fs::hard_link(&first, folder.join(format!("picture-{i}.png"))).expect("a temporary folder");
            }
        }
    }
}
