//! Rates, schedules, decisions and counts against tables that the original tools computed (`make_tables.py`).

use std::sync::LazyLock;

use serde_json::Value;

use super::{nets, phase};
use crate::{
    AdamW, Controller, Curve, Decision, EarlyStopping, Grouping, Lr, Metric, Metrics, Optimizer, Phase,
    PhaseSpec, Recipe, Schedule, Selection, Selector, Suggestion, Sweep, Warmup, keras_layers,
};

static TABLES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("tables.json")).expect("the script wrote JSON"));

fn rows(name: &str) -> &'static [Value] {
    TABLES[name].as_array().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

fn close(got: f64, want: f64, what: &str) {
    // The tools compute positions of combined schedules in single precision.
    assert!((got - want).abs() <= 2e-6 * want.abs().max(1e-3), "{what}: {got} instead of {want}");
}

/// A schedule at 41 positions from 0 to 1.
fn by_position(schedule: &Schedule, row: &Value) {
    for (i, want) in numbers(&row["factor"]).into_iter().enumerate() {
        let rate = schedule.at(i as f64 / 40.0, 0);
        close(rate.factor, want, &format!("{schedule:?} at {i}/40"));
        if let Some(momentum) = rate.momentum {
            close(momentum, numbers(&row["momentum"])[i], "momentum");
        }
    }
}

#[test]
fn one_cycle_and_flat_cosine_are_fastais() {
    for row in rows("one_cycle") {
        let schedule = Schedule::OneCycle {
            div: number(row, "div"),
            div_final: number(row, "div_final"),
            pct_start: number(row, "pct_start"),
            momentum: vec![0.95, 0.85, 0.95],
        };
        by_position(&schedule, row);
    }
    for row in rows("flat_cosine") {
        let schedule =
            Schedule::FlatCosine { flat: number(row, "flat"), div_final: number(row, "div_final") };
        by_position(&schedule, row);
    }
}

#[test]
fn cosine_with_restarts_is_fastais_sgdr() {
    for row in rows("sgdr") {
        let cycles = row["cycles"].as_u64().unwrap() as usize;
        let schedule = Schedule::Cosine { end: 0.0, cycles, mult: number(row, "mult") };
        for point in row["points"].as_array().unwrap() {
            let [at, want] = numbers(point)[..] else { panic!("a point has two numbers") };
            let got = schedule.at(at, 0).factor;
            assert!((got - want).abs() < 1e-6, "{cycles} cycles at {at}: {got} instead of {want}");
        }
    }
}

#[test]
fn schedules_by_epoch_are_pytorchs() {
    let epochs = 12;
    let check = |name: &str, schedule: Schedule, warmup: Option<Warmup>| {
        for (epoch, want) in numbers(&TABLES["torch"][name]).into_iter().enumerate() {
            let position = epoch as f64 / epochs as f64;
            let rate = match warmup {
                Some(w) => w.at(&schedule, position, epoch, epochs),
                None => schedule.at(position, epoch),
            };
            close(rate.factor, want, &format!("{name} at epoch {epoch}"));
        }
    };
    check("step", Schedule::Step { every: 5, gamma: 0.1 }, None);
    check("multi_step", Schedule::MultiStep { at: vec![3, 7, 8], gamma: 0.3 }, None);
    check("exponential", Schedule::Exponential { gamma: 0.9 }, None);
    check("polynomial", Schedule::Polynomial { power: 2.0, end: 0.0 }, None);
    check("cosine", Schedule::Cosine { end: 0.1, cycles: 1, mult: 2.0 }, None);
    check("warmup_cosine", Schedule::cosine(), Some(Warmup { epochs: 3.0, start: 0.01 }));
}

#[test]
fn slices_are_fastcores_even_mults() {
    let graph = nets::mobilenet_v2();
    for row in rows("even_mults") {
        let n = row["n"].as_u64().unwrap() as usize;
        let mut parts: Vec<Selection> = (0..n - 1).map(|i| format!("features.{i}").as_str().into()).collect();
        parts.push(Selection::all());
        let spec = PhaseSpec::new("p", 1, "all").groups(Grouping::Split(parts)).optimizer(no_decay());
        let p = phase(&graph, spec.lr([number(row, "a"), number(row, "b")])).unwrap();
        let want = numbers(&row["lrs"]);
        assert_eq!(p.groups.len(), want.len());
        p.groups.iter().zip(want).for_each(|(g, w)| close(g.lr, w, &g.name));
    }
}

fn no_decay() -> Optimizer {
    Optimizer::AdamW(AdamW { weight_decay: 0.0, ..AdamW::default() })
}

/// fastai's three groups.
fn thirds() -> Grouping {
    let first = ["conv1", "bn1", "layer1", "layer2"].map(Selector::from);
    Grouping::Split(vec![first.into(), ["layer3", "layer4"].into(), "head".into()])
}

#[test]
fn fine_tune_runs_at_fastais_rates_batch_by_batch() {
    // learn.fine_tune(3, base_lr=2e-3, freeze_epochs=2) on four batches an epoch.
    let cycle = |pct_start, div| Schedule::OneCycle {
        div,
        div_final: 1e5,
        pct_start,
        momentum: vec![0.95, 0.85, 0.95],
    };
    let phases = [
        PhaseSpec::new("frozen", 2, "head").lr(Lr::SliceStop(2e-3)).schedule(cycle(0.99, 25.0)),
        PhaseSpec::new("unfrozen", 3, "all").lr([1e-5, 1e-3]).schedule(cycle(0.3, 5.0)),
    ];
    for (spec, want) in phases.into_iter().zip(rows("fine_tune")) {
        let p = phase(&nets::resnet18(), spec.groups(thirds()).optimizer(no_decay())).unwrap();
        let want = want.as_array().unwrap();
        assert_eq!(want.len(), 4 * p.epochs);
        for (i, row) in want.iter().enumerate() {
            let rate = p.rate(i as f64 / want.len() as f64, i / 4);
            for (group, lr) in p.groups.iter().zip(numbers(&row["lrs"])) {
                close(group.lr * rate.factor, lr, &format!("{} of {} at batch {i}", group.name, p.name));
            }
            close(rate.momentum.unwrap(), number(row, "mom"), "momentum");
        }
    }
}

#[test]
fn freeze_to_is_fastais() {
    let graph = nets::resnet18();
    for row in rows("freeze_to") {
        let n = row[0].as_i64().unwrap();
        let p = phase(
            &graph,
            PhaseSpec::new("p", 1, Selector::FreezeTo(n)).groups(thirds()).optimizer(no_decay()),
        );
        let p = p.unwrap();
        let trains: Vec<_> = p.groups.iter().map(|g| p.marking.params.trains(g.params[0])).collect();
        let want: Vec<_> = row[1].as_array().unwrap().iter().map(|v| v.as_bool().unwrap()).collect();
        assert_eq!(trains, want, "freeze_to({n})");
    }
}

#[test]
fn layer_decay_is_timms() {
    for row in rows("layer_decay") {
        let graph = if row["model"] == "resnet18" { nets::resnet18() } else { nets::resnet50() };
        let (layer_decay, min_scale) = (number(row, "decay"), number(row, "min_scale"));
        let adamw = Optimizer::AdamW(AdamW { weight_decay: 0.05, ..AdamW::default() });
        let spec = PhaseSpec::new("p", 1, "all").optimizer(adamw);
        let p = phase(&graph, spec.lr(Lr::LayerDecay { base: 1.0, layer_decay, min_scale })).unwrap();
        let distinct = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.dedup_by(|a, b| (*a - *b).abs() < 1e-12);
            values
        };
        let scales = distinct(p.groups.iter().map(|g| g.lr).collect());
        let want = numbers(&row["scales"]);
        assert_eq!(scales.len(), want.len(), "{row}");
        scales.iter().zip(want).for_each(|(g, w)| close(*g, w, "scale"));
        assert_eq!(distinct(p.groups.iter().map(|g| g.weight_decay).collect()), numbers(&row["decays"]));
    }
}

#[test]
fn the_finder_sweeps_smooths_stops_and_suggests_as_fastai() {
    let sweep = Sweep::default();
    for (i, row) in rows("finder").iter().enumerate() {
        let mut curve = Curve::default();
        for loss in numbers(&row["raw"]) {
            if curve.next_lr(&sweep).is_none() {
                break;
            }
            curve.push(&sweep, loss);
        }
        let (lrs, smooth) = (numbers(&row["lrs"]), numbers(&row["smooth"]));
        assert_eq!(curve.points().len(), lrs.len(), "curve {i} stops where fastai does");
        for (point, (lr, loss)) in curve.points().iter().zip(lrs.into_iter().zip(smooth)) {
            close(point.lr, lr, "rate");
            close(point.loss, loss, "smoothed loss");
        }
        for reading in Suggestion::ALL {
            let got = curve.suggest(&sweep, reading).unwrap();
            close(got.lr, number(row, reading.name()), &format!("{} of curve {i}", reading.name()));
        }
    }
    // A curve too short for a reading has none, and what is no number ends the sweep.
    let mut curve = Curve::default();
    (0..20).for_each(|_| curve.push(&sweep, 1.0));
    assert_eq!(curve.suggest(&sweep, Suggestion::Slide), None);
    curve.push(&sweep, f64::NAN);
    assert_eq!(curve.next_lr(&sweep), None);
}

fn loss(value: f64) -> Metrics {
    [(Metric::Loss, value)].into()
}

#[test]
fn falls_on_a_plateau_are_keras() {
    for row in rows("plateau") {
        let schedule = Schedule::Plateau {
            metric: Metric::Loss,
            mode: crate::Mode::Auto,
            factor: number(row, "factor"),
            patience: row["patience"].as_u64().unwrap() as usize,
            min_delta: number(row, "min_delta"),
            cooldown: row["cooldown"].as_u64().unwrap() as usize,
            min_factor: number(row, "min_lr"),
        };
        let p = phase(&nets::resnet18(), PhaseSpec::new("p", 99, "head").schedule(schedule)).unwrap();
        let mut controller = Controller::default();
        let losses = numbers(&row["losses"]);
        for (epoch, (value, want)) in losses.into_iter().zip(numbers(&row["lrs"])).enumerate() {
            controller.after_epoch(&p, epoch, &loss(value));
            let got = controller.factor();
            assert!((got - want).abs() <= 1e-9 * want, "epoch {epoch} of {row}: {got} instead of {want}");
        }
    }
}

#[test]
fn early_stopping_is_keras() {
    for row in rows("early_stopping") {
        let rule = EarlyStopping {
            patience: row["patience"].as_u64().unwrap() as usize,
            min_delta: number(row, "min_delta"),
            ..EarlyStopping::default()
        };
        let recipe = Recipe::new("r", "resnet18").early_stopping(rule).phase(PhaseSpec::new("p", 99, "head"));
        let p: Phase = recipe.resolve(&nets::resnet18()).unwrap().remove(0);
        let mut controller = Controller::default();
        let stopped = numbers(&row["losses"]).into_iter().enumerate().find_map(|(epoch, value)| {
            let decisions = controller.after_epoch(&p, epoch, &loss(value));
            matches!(decisions.last(), Some(Decision::Stop { .. })).then_some(epoch as u64)
        });
        assert_eq!(stopped, row["stopped"].as_u64(), "{row}");
        assert_eq!(controller.best().map(|(epoch, _)| epoch as u64), row["best"].as_u64(), "{row}");
    }
}

#[test]
fn layers_are_counted_in_keras_order() {
    for graph in [nets::vgg16(), nets::resnet50(), nets::mobilenet_v2()] {
        let want = TABLES["keras_layers"][graph.name()].as_array().unwrap();
        let kind = |name: &str| {
            let node = graph.nodes().iter().find(|n| n.name == name);
            node.map_or("pad", |n| n.op.kind()).to_owned()
        };
        let got: Vec<_> = keras_layers(&graph).iter().map(|l| kind(&l.name)).collect();
        let want: Vec<_> = want.iter().map(|row| row[0].as_str().unwrap()).collect();
        assert_eq!(got, want, "{}", graph.name());
    }
}
