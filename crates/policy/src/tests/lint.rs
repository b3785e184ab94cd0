//! Doubts, one rule after another: each with a case that it is about and one that it is not.

use super::nets;
use crate::{
    Doubt, EarlyStopping, Facts, Lr, Metric, NormMode, Optimizer, PhaseSpec, Recipe, Schedule, Severity, Sgd,
    Thaw, Warmup, lint,
};

fn facts() -> Facts {
    Facts {
        classes: ["cat", "dog", "owl"].map(String::from).into(),
        train: vec![100, 120, 100],
        val: vec![20, 30, 20],
        pretrained: true,
        ..Facts::default()
    }
}

fn doubts(recipe: &Recipe, facts: &Facts) -> Vec<Doubt> {
    let graph = nets::resnet18();
    lint(recipe, &recipe.resolve(&graph).unwrap(), &graph, facts)
}

fn rules(recipe: &Recipe, facts: &Facts) -> Vec<&'static str> {
    let warnings = doubts(recipe, facts).into_iter().filter(|d| d.severity == Severity::Warning);
    warnings.map(|d| d.rule).collect()
}

fn recipe(phase: PhaseSpec) -> Recipe {
    Recipe::new("r", "resnet18").phase(phase)
}

fn head() -> Recipe {
    recipe(PhaseSpec::new("head", 5, "head"))
}

#[test]
fn the_recipes_of_the_program_raise_no_warning() {
    for name in ["two-stage", "head", "full", "layer-decay", "gradual", "p2", "f2", "k3"] {
        let recipe = Recipe::named(name).unwrap();
        let graph = nets::mobilenet_v2();
        let found = lint(&recipe, &recipe.resolve(&graph).unwrap(), &graph, &facts());
        assert!(found.iter().all(|d| d.severity == Severity::Note), "{name}: {found:?}");
    }
}

#[test]
fn a_random_head_with_a_thawed_body_at_a_high_rate() {
    let all = PhaseSpec::new("all", 5, "all").lr(1e-3);
    let found = doubts(&recipe(all.clone()), &facts());
    assert_eq!(found[0].rule, "random-head");
    assert!(found[0].message.contains("trains the body at 1.0e-3"), "{}", found[0].message);
    assert_eq!(found[0].set.as_deref(), Some("phase.1.warmup={ epochs = 1.0, start = 0.01 }"));
    // What it says to set helps.
    let mut helped = recipe(all.clone());
    let (path, value) = found[0].set.as_ref().unwrap().split_once('=').unwrap();
    helped.set(path, value).unwrap();
    assert!(rules(&helped, &facts()).is_empty());
    let fine = [
        recipe(all.clone().warmup(Warmup::default())),
        recipe(all.clone().schedule(Schedule::one_cycle())),
        recipe(all.clone().optimizer(Optimizer::Sgd(Sgd::default()))),
        recipe(all.clone().lr([1e-6, 1e-3])).phase(all.clone()),
        head().phase(all.clone()),
    ];
    let expected = [0, 0, 0, 1, 0];
    for (recipe, n) in fine.iter().zip(expected) {
        assert_eq!(rules(recipe, &facts()).len(), n, "{recipe:?}");
    }
    assert!(rules(&recipe(all), &Facts { pretrained: false, ..facts() }).is_empty());
}

#[test]
fn what_does_not_belong_to_the_weights() {
    let other = Some(("[-1, 1]".to_owned(), "ImageNet mean and deviation".to_owned()));
    assert_eq!(rules(&head(), &Facts { preprocessing: other, ..facts() }), ["preprocessing"]);
    let same = Some(("[-1, 1]".to_owned(), "[-1, 1]".to_owned()));
    assert!(rules(&head(), &Facts { preprocessing: same, ..facts() }).is_empty());
    assert_eq!(rules(&head().image_size(64), &Facts { trained_size: Some(160), ..facts() }), ["image-size"]);
    assert!(rules(&head().image_size(96), &Facts { trained_size: Some(160), ..facts() }).is_empty());
}

#[test]
fn live_statistics_of_small_batches() {
    let thawed = || recipe(PhaseSpec::new("top", 5, ["layer4", "head"]).lr(1e-5));
    assert_eq!(rules(&thawed().batch_size(4), &facts()), ["small-batch"]);
    assert!(rules(&head().batch_size(4), &facts()).is_empty(), "a frozen body has no live statistics");
    let kept = recipe(PhaseSpec::new("top", 5, ["layer4", "head"]).lr(1e-5).norm(NormMode::AffineOnly));
    assert!(rules(&kept.batch_size(4), &facts()).is_empty());
    let one_left = Facts { train: vec![100, 120, 101], ..facts() };
    let found = doubts(&thawed(), &one_left);
    assert_eq!(
        found[0].message,
        "the last batch of every epoch of phase `top` has 1 image, and normalises by its statistics"
    );
    let mut dropped = thawed();
    dropped.set("data.drop_last", "true").unwrap();
    assert!(rules(&dropped, &one_left).is_empty());
    // A thaw to come counts too.
    let later = recipe(PhaseSpec::new("later", 5, "head").thaw(Thaw { at: vec![2], ..Thaw::default() }));
    assert_eq!(rules(&later.batch_size(2), &facts()), ["small-batch"]);
}

#[test]
fn running_statistics_that_stay_behind() {
    let mut top = recipe(PhaseSpec::new("top", 5, ["layer4", "head"]).lr(1e-5));
    assert!(rules(&top, &facts()).is_empty(), "50 steps at a tenth leave half a percent");
    top.set("model.norm_momentum", "0.01").unwrap();
    let found = doubts(&top, &facts());
    assert_eq!(
        (found[0].rule, found[0].set.as_deref()),
        ("slow-statistics", Some("model.norm_momentum=0.1"))
    );
    assert!(found[0].message.contains("after the 50 steps that update them 61 % of them"), "{found:?}");
    assert!(rules(&top, &Facts::default()).is_empty(), "without images nobody knows the steps");
    top.set("phase.1.norm", "affine_only").unwrap();
    assert!(rules(&top, &facts()).is_empty(), "statistics that stay need not follow");
    // All phases that update them count.
    let mut long = top.clone().phase(PhaseSpec::new("all", 50, "all").lr(1e-5));
    long.set("phase.1.norm", "auto").unwrap();
    assert!(rules(&long, &facts()).is_empty());
}

#[test]
fn drift_and_selectors_and_zero_rates() {
    let drifting = recipe(PhaseSpec::new("p", 5, "head").norm(NormMode::Drifting));
    assert_eq!(rules(&drifting, &facts()), ["drifting"]);
    let vague = recipe(PhaseSpec::new("p", 5, ["layer4", "conv1", "head"]).lr(1e-5));
    let found = doubts(&vague, &facts());
    assert_eq!(
        (found[0].rule, found[0].message.starts_with("phase `p`: `conv1` is the layer alone")),
        ("selector", true)
    );
    let zero = recipe(PhaseSpec::new("p", 5, "all").lr(Lr::by_name(1e-5, [("layer1", 0.0)])));
    assert_eq!(rules(&zero, &facts()), ["zero-rate"]);
}

#[test]
fn the_data() {
    let shared = vec![("train/cat/1.jpg".to_owned(), "val/cat/9.jpg".to_owned())];
    let found = doubts(&head(), &Facts { shared, ..facts() });
    assert!(
        found[0]
            .message
            .starts_with("1 image is in training and in validation, as train/cat/1.jpg and val/cat/9.jpg")
    );
    let missing = Facts { val: vec![20, 0, 0], ..facts() };
    assert_eq!(doubts(&head(), &missing)[0].message, "no validation image of dog, owl");
    let rare = Facts { train: vec![100, 90, 11], ..facts() };
    let found = doubts(&head(), &rare);
    assert_eq!((found[0].rule, found[0].set.as_deref()), ("imbalance", Some("data.balance=true")));
    let mut balanced = head();
    balanced.set("data.balance", "true").unwrap();
    assert!(rules(&balanced, &rare).is_empty());
    let mut weighted = head();
    weighted.set("loss.class_weights", "balanced").unwrap();
    assert!(rules(&weighted, &rare).is_empty());
    let few = doubts(&head(), &Facts { train: vec![20, 20, 20], ..facts() });
    assert!(
        few.iter().any(|d| d.rule == "few-images" && d.set.as_deref() == Some("batch_size=8")),
        "{few:?}"
    );
    assert!(rules(&head(), &Facts::default()).is_empty(), "what is not known is not judged");
}

#[test]
fn notes_on_what_never_happens_and_what_decay_does_not_reach() {
    let notes = |recipe: &Recipe| -> Vec<String> {
        let found = doubts(recipe, &facts()).into_iter();
        found.filter(|d| d.severity == Severity::Note).map(|d| d.message).collect()
    };
    assert_eq!(
        notes(&head()),
        [
            "weight decay 0.01 in phase `head` does not reach its 20 frozen weights: what is frozen stays as it is"
        ]
    );
    let patient = head().early_stopping(EarlyStopping { patience: 9, ..EarlyStopping::default() });
    assert!(notes(&patient).iter().any(|m| m.contains("waits 9 epochs, longer than phase `head`")));
    let patient = head().validate_every(0).early_stopping(EarlyStopping::default());
    assert!(notes(&patient).iter().any(|m| m.contains("epochs that are measured, and phase `head` has 1")));
    let by_train_loss = EarlyStopping { metric: Metric::TrainLoss, patience: 1, ..EarlyStopping::default() };
    let patient = head().validate_every(0).early_stopping(by_train_loss);
    assert!(!notes(&patient).iter().any(|m| m.contains("early stopping")), "it is told after each epoch");
    let slow = recipe(PhaseSpec::new("p", 5, "head").thaw(Thaw { every: 2, ..Thaw::default() }));
    assert_eq!(
        notes(&slow),
        ["phase `p` ends after 2 of its 5 thaws: a thaw every 2 epochs needs 11 epochs"]
    );
}
