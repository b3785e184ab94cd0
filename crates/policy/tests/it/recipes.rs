//! Every recipe that the program carries, in Rust: the builders say all that TOML says.

use defrost_augment::{ColorJitter, Op, RandomResizedCrop, Rotate};
use defrost_policy::{
    Adam, AdamW, EarlyStopping, Grouping, Head, Loss, Lr, Metric, NormMode, Optimizer, PhaseSpec, Plateau,
    Recipe, Rollback, Schedule, Selector, Sgd, Start, Sweep, Thaw, Unit, Warmup,
};

/// `built` is what the recipe called `name` is, written in TOML too.
fn check(name: &str, mut built: Recipe) {
    let read = Recipe::named(name).unwrap();
    (built.name, built.about) = (read.name.clone(), read.about.clone());
    assert_eq!(built, read, "{name}");
    assert_eq!(Recipe::from_toml(&built.to_toml()).unwrap(), read, "{name} from\n{}", built.to_toml());
    assert_eq!(Recipe::from_toml(&built.to_toml()).unwrap().to_toml(), read.to_toml());
}

/// MobileNetV2 with the program's weights at 128 pixels: what most recipes begin with.
fn mobilenet() -> Recipe {
    Recipe::new("", "mobilenet_v2").weights("embedded").image_size(128).batch_size(32).seed(0)
}

fn crop_and_flip() -> [Op; 2] {
    [
        Op::RandomResizedCrop(RandomResizedCrop { scale: [0.5, 1.0], ..Default::default() }),
        Op::FlipHorizontal(Default::default()),
    ]
}

fn turns_and_colours() -> Vec<Op> {
    let mut ops = crop_and_flip().to_vec();
    ops.push(Op::Rotate(Rotate { degrees: 10.0, p: 0.5, ..Default::default() }));
    let colours =
        ColorJitter { brightness: 0.2, contrast: 0.2, saturation: 0.2, p: 0.75, ..Default::default() };
    ops.push(Op::ColorJitter(colours));
    ops
}

fn adam() -> Optimizer {
    Optimizer::Adam(Adam::default())
}

fn keras_adam() -> Optimizer {
    Optimizer::Adam(Adam { eps: 1e-7, ..Adam::default() })
}

fn fastai_adam() -> Optimizer {
    Optimizer::AdamW(AdamW { betas: [0.9, 0.99], eps: 1e-5, weight_decay: 0.01, ..AdamW::default() })
}

fn adamw(weight_decay: f64) -> Optimizer {
    Optimizer::AdamW(AdamW { weight_decay, ..AdamW::default() })
}

fn sgd(weight_decay: f64) -> Optimizer {
    Optimizer::Sgd(Sgd { momentum: 0.9, weight_decay, ..Sgd::default() })
}

fn short_warmup() -> Warmup {
    Warmup { epochs: 1.0, start: 0.01 }
}

fn one_cycle(pct_start: f64, div: f64) -> Schedule {
    Schedule::OneCycle { div, div_final: 1e5, pct_start, momentum: vec![0.95, 0.85, 0.95] }
}

#[test]
fn two_stage() {
    let everything = PhaseSpec::new("everything", 10, "all").norm(NormMode::AffineOnly).lr([2e-5, 1e-3]);
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .loss(Loss::smoothed(0.1))
        .phase(PhaseSpec::new("head", 5, "head").lr(3e-3).schedule(Schedule::one_cycle()))
        .phase(everything.schedule(Schedule::one_cycle()));
    check("two-stage", recipe);
}

#[test]
fn head() {
    let phase = PhaseSpec::new("head", 10, "head").lr(3e-3).schedule(Schedule::one_cycle());
    check("head", mobilenet().augment(crop_and_flip()).phase(phase));
}

#[test]
fn full() {
    let phase = PhaseSpec::new("everything", 15, "all").lr(1e-3).schedule(Schedule::one_cycle());
    check("full", mobilenet().augment(turns_and_colours()).loss(Loss::smoothed(0.1)).phase(phase));
}

#[test]
fn gradual() {
    let thawing = PhaseSpec::new("thawing", 12, Selector::LastStages(2))
        .lr(5e-4)
        .schedule(Schedule::FlatCosine { flat: 0.75, div_final: 1e5 })
        .thaw(Thaw::by(Unit::Stage).every(1).lr_factor(0.9));
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .loss(Loss::smoothed(0.1))
        .phase(PhaseSpec::new("head", 3, "head").lr(3e-3).schedule(Schedule::one_cycle()))
        .phase(thawing);
    check("gradual", recipe);
}

#[test]
fn layer_decay() {
    let everything = PhaseSpec::new("everything", 12, "all")
        .lr(Lr::LayerDecay { base: 1e-3, layer_decay: 0.75, min_scale: 0.0 })
        .optimizer(adamw(0.05))
        .schedule(Schedule::cosine())
        .warmup(short_warmup());
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .loss(Loss::smoothed(0.1))
        .phase(PhaseSpec::new("head", 3, "head").lr(3e-3).schedule(Schedule::one_cycle()))
        .phase(everything);
    check("layer-decay", recipe);
}

#[test]
fn l1_new_layers() {
    let phase = PhaseSpec::new("new layers", 10, "head").lr(1e-3).optimizer(adam());
    check("l1-new-layers", mobilenet().head(Head::pooled([256]).dropout(0.5)).augment([]).phase(phase));
}

#[test]
fn l2_last_layer() {
    let phase = PhaseSpec::new("last layer", 15, Selector::LastLayers(1)).lr(1e-4).optimizer(adam());
    check("l2-last-layer", mobilenet().augment([]).phase(phase));
}

#[test]
fn l3_two_more_layers() {
    let phase =
        |name, layers, lr| PhaseSpec::new(name, 10, Selector::LastLayers(layers)).lr(lr).optimizer(adam());
    let recipe = mobilenet().augment(crop_and_flip());
    check(
        "l3-two-more-layers",
        recipe.phase(phase("last layer", 1, 1e-4)).phase(phase("three layers", 3, 5e-5)),
    );
}

#[test]
fn l4_rate_by_epoch() {
    let phase = PhaseSpec::new("everything", 24, "all")
        .lr(1e-3)
        .optimizer(adam())
        .schedule(Schedule::Table { factors: vec![(0, 1.0), (10, 0.1), (20, 0.01)] })
        .warmup(short_warmup());
    check("l4-rate-by-epoch", mobilenet().augment(turns_and_colours()).phase(phase));
}

#[test]
fn l4_exponential() {
    let phase = PhaseSpec::new("everything", 15, "all")
        .lr(1e-2)
        .optimizer(sgd(0.0))
        .schedule(Schedule::Exponential { gamma: 0.85 })
        .warmup(short_warmup());
    check("l4-exponential", mobilenet().augment(turns_and_colours()).phase(phase));
}

#[test]
fn l5_thaw_on_plateau() {
    let thaw = Thaw::by(Unit::Stage)
        .every(4)
        .lr_factor(0.7)
        .restore_best()
        .on_plateau(Plateau::of(Metric::Loss, 2).min_delta(0.002))
        .rollback(Rollback::of(Metric::Loss, 3).tolerance(0.02));
    let thawing =
        PhaseSpec::new("thawing", 16, Selector::LastStages(2)).lr(3e-4).optimizer(adam()).thaw(thaw);
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .early_stopping(EarlyStopping::of(Metric::Loss, 6))
        .phase(PhaseSpec::new("head", 4, "head").lr(1e-3).optimizer(adam()))
        .phase(thawing);
    check("l5-thaw-on-plateau", recipe);
}

#[test]
fn l6_repeatable() {
    let recipe = mobilenet()
        .monitor(Metric::Accuracy)
        .augment(turns_and_colours())
        .keep_every_epoch()
        .phase(PhaseSpec::new("head", 5, "head").lr(1e-3).optimizer(adam()).save("head"))
        .phase(PhaseSpec::new("everything", 8, "all").lr(1e-4).optimizer(adam()).save("everything"));
    check("l6-repeatable", recipe);
}

#[test]
fn t1_pooled_head() {
    let phase = PhaseSpec::new("head", 10, "head").lr(1e-3).optimizer(keras_adam());
    check("t1-pooled-head", mobilenet().image_size(224).head(Head::pooled([1024])).augment([]).phase(phase));
}

#[test]
fn t2_last_20_layers() {
    let phase = |name, layers, lr| {
        PhaseSpec::new(name, 6, Selector::LastKerasLayers(layers)).lr(lr).optimizer(keras_adam())
    };
    let recipe = mobilenet().head(Head::pooled([512])).augment(turns_and_colours());
    let recipe = recipe.phase(phase("last 20 layers", 20, 1e-3)).phase(phase("last 60 layers", 60, 1e-4));
    check("t2-last-20-layers", recipe);
}

#[test]
fn t3_rates_by_block() {
    let rates = [("features.2", 1e-5), ("features.{3,4}", 5e-5), ("features.{5,6}", 1e-4)];
    let phase = PhaseSpec::new("everything", 12, "all")
        .lr(Lr::by_name(1e-3, rates))
        .optimizer(keras_adam())
        .warmup(short_warmup());
    let recipe = mobilenet().head(Head::pooled([256])).augment(turns_and_colours());
    check("t3-rates-by-block", recipe.phase(phase));
}

#[test]
fn t4_regression() {
    let recipe = mobilenet()
        .head(Head::pooled([256]))
        .augment(crop_and_flip())
        .loss(Loss::Huber { delta: 1.0 })
        .monitor(Metric::Mae)
        .phase(PhaseSpec::new("head", 5, "head").lr(1e-3).optimizer(keras_adam()))
        .phase(
            PhaseSpec::new("everything", 8, "all")
                .lr([1e-5, 3e-4])
                .optimizer(keras_adam())
                .schedule(Schedule::one_cycle()),
        );
    check("t4-regression", recipe);
}

#[test]
fn t4_labels() {
    let recipe = mobilenet()
        .head(Head::pooled([256]))
        .augment(crop_and_flip())
        .loss(Loss::BinaryCrossEntropy { label_smoothing: 0.0 })
        .monitor(Metric::Map)
        .phase(PhaseSpec::new("head", 5, "head").lr(3e-3).optimizer(keras_adam()))
        .phase(
            PhaseSpec::new("everything", 8, "all")
                .lr([2e-5, 1e-3])
                .optimizer(keras_adam())
                .schedule(Schedule::one_cycle()),
        );
    check("t4-labels", recipe);
}

#[test]
fn k1_flattened_head() {
    let phase = PhaseSpec::new("head", 10, "head").lr(1e-3).optimizer(keras_adam());
    check("k1-flattened-head", mobilenet().head(Head::flattened([256])).augment([]).phase(phase));
}

#[test]
fn k2_last_3_layers() {
    let recipe = mobilenet()
        .head(Head::flattened([256]))
        .augment(crop_and_flip())
        .phase(PhaseSpec::new("head", 5, "head").lr(1e-3).optimizer(keras_adam()))
        .phase(
            PhaseSpec::new("last 3 layers", 8, Selector::LastKerasLayers(3)).lr(1e-4).optimizer(keras_adam()),
        );
    check("k2-last-3-layers", recipe);
}

#[test]
fn k3_frozen_then_free() {
    let free = PhaseSpec::new("trainable base", 8, "all").norm(NormMode::AffineOnly).lr(1e-5);
    let recipe = mobilenet()
        .head(Head::pooled([256]))
        .augment(crop_and_flip())
        .phase(PhaseSpec::new("frozen base", 5, "head").lr(1e-3).optimizer(keras_adam()))
        .phase(free.optimizer(keras_adam()));
    check("k3-frozen-then-free", recipe);
}

#[test]
fn k4_against_overfitting() {
    let recipe = mobilenet()
        .head(Head::pooled([256]).dropout(0.5))
        .augment(turns_and_colours())
        .loss(Loss::smoothed(0.1))
        .phase(PhaseSpec::new("head", 5, "head").lr(1e-3).optimizer(adamw(0.05)))
        .phase(
            PhaseSpec::new("everything", 10, "all")
                .lr([1e-5, 5e-4])
                .optimizer(adamw(0.05))
                .schedule(Schedule::cosine()),
        );
    check("k4-against-overfitting", recipe);
}

#[test]
fn p1_head_by_sgd() {
    let phase = PhaseSpec::new("head", 15, "head").lr(1e-3).optimizer(sgd(0.0));
    check("p1-head-by-sgd", mobilenet().augment([]).phase(phase));
}

#[test]
fn p2_last_stage() {
    let last = PhaseSpec::new("last stage", 8, Selector::LastStages(2));
    let recipe = mobilenet()
        .augment(crop_and_flip())
        .phase(PhaseSpec::new("head", 8, "head").lr(1e-3).optimizer(sgd(0.0)))
        .phase(last.lr(Lr::by_name(1e-4, [("head", 1e-3)])).optimizer(sgd(0.0)));
    check("p2-last-stage", recipe);
}

#[test]
fn p3_stage_by_stage() {
    let stages = PhaseSpec::new("stage by stage", 20, Selector::LastStages(2))
        .lr(Lr::by_name(1e-4, [("head", 1e-3)]))
        .optimizer(sgd(0.0))
        .thaw(Thaw::by(Unit::Stage).every(1).lr_factor(0.9));
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .phase(PhaseSpec::new("head", 4, "head").lr(1e-3).optimizer(sgd(0.0)))
        .phase(stages);
    check("p3-stage-by-stage", recipe);
}

#[test]
fn p4_early_stopping() {
    let recipe = mobilenet()
        .augment(turns_and_colours())
        .early_stopping(EarlyStopping::of(Metric::Loss, 3))
        .phase(PhaseSpec::new("head", 5, "head").lr(5e-3).optimizer(sgd(0.0)))
        .phase(
            PhaseSpec::new("everything", 25, "all")
                .lr(2e-3)
                .optimizer(sgd(1e-4))
                .schedule(Schedule::Step { every: 7, gamma: 0.1 }),
        );
    check("p4-early-stopping", recipe);
}

#[test]
fn f1_stages() {
    let cycle = |name, epochs, train, lr: Lr| {
        PhaseSpec::new(name, epochs, train).lr(lr).optimizer(fastai_adam()).schedule(Schedule::one_cycle())
    };
    let slow = cycle("unfrozen, slow", 2, "all", [1e-6, 1e-4].into()).groups(Grouping::Whole);
    let recipe = mobilenet()
        .head(Head::fastai())
        .augment(crop_and_flip())
        .phase(cycle("frozen", 4, "head", 1e-3.into()).norm(NormMode::TrainBn).save("stage-1"))
        .phase(cycle("unfrozen", 1, "all", 1e-3.into()))
        .phase(slow.start(Start::Named("stage-1".into())).find_lr(Sweep::default()).save("stage-2"));
    check("f1-stages", recipe);
}

#[test]
fn f2_fine_tune() {
    let frozen = PhaseSpec::new("frozen", 1, "head").norm(NormMode::TrainBn).lr(Lr::SliceStop(2e-3));
    let recipe = mobilenet()
        .head(Head::fastai())
        .augment(crop_and_flip())
        .phase(frozen.groups(Grouping::Whole).optimizer(fastai_adam()).schedule(one_cycle(0.99, 25.0)))
        .phase(
            PhaseSpec::new("unfrozen", 8, "all")
                .groups(Grouping::Whole)
                .lr([1e-5, 1e-3])
                .optimizer(fastai_adam())
                .schedule(one_cycle(0.3, 5.0)),
        );
    check("f2-fine-tune", recipe);
}

#[test]
fn f3_checkpoints() {
    let frozen = PhaseSpec::new("frozen", 5, "head").norm(NormMode::TrainBn).lr(3e-3);
    let recipe = mobilenet()
        .head(Head::fastai())
        .augment(crop_and_flip())
        .keep_every_epoch()
        .phase(frozen.optimizer(fastai_adam()).schedule(Schedule::one_cycle()).save("stage-1"))
        .phase(
            PhaseSpec::new("unfrozen", 6, "all")
                .groups(Grouping::Whole)
                .lr([1e-5, 1e-3])
                .optimizer(fastai_adam())
                .schedule(Schedule::one_cycle())
                .start(Start::Best { before: 1 })
                .save("stage-2"),
        );
    check("f3-checkpoints", recipe);
}

/// A recipe that is added gets its test here.
#[test]
fn every_recipe_is_built_above() {
    let source = include_str!("recipes.rs");
    for (name, ..) in defrost_policy::recipes() {
        assert!(source.contains(&format!("\"{name}\",")), "{name} is not built in Rust");
    }
}
