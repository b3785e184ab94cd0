//! What happens between epochs.

use super::{nets, phase};
use crate::{
    Controller, Decision, EarlyStopping, Metric, Metrics, Phase, PhaseSpec, Plateau, Recipe, Rollback, Thaw,
};

fn metrics(loss: f64) -> Metrics {
    [(Metric::Loss, loss), (Metric::Accuracy, 1.0 - loss)].into()
}

/// Decisions after each epoch; the controller goes through JSON-like saving between any two.
fn run(phase: &Phase, losses: &[f64]) -> Vec<Vec<Decision>> {
    let mut controller = Controller::default();
    let mut all = Vec::new();
    for (epoch, loss) in losses.iter().enumerate() {
        all.push(controller.after_epoch(phase, epoch, &metrics(*loss)));
        for decision in all.last().unwrap() {
            if let Decision::Restore { epoch, .. } = decision {
                assert!(controller.restorable().contains(epoch) || controller.best().is_none());
            }
        }
        let text = toml::to_string(&controller).unwrap();
        controller = toml::from_str(&text).unwrap();
    }
    all
}

fn steps(decisions: &[Vec<Decision>]) -> Vec<Option<usize>> {
    let step = |d: &Vec<Decision>| {
        d.iter().find_map(|d| match d {
            Decision::Step { step, .. } => Some(*step),
            _ => None,
        })
    };
    decisions.iter().map(step).collect()
}

fn thawing(epochs: usize, thaw: Thaw) -> Phase {
    phase(&nets::resnet18(), PhaseSpec::new("p", epochs, "head").thaw(thaw)).unwrap()
}

#[test]
fn thaws_at_epochs_and_every_few_epochs() {
    let p = thawing(6, Thaw { at: vec![1, 4], lr_factor: 0.5, ..Thaw::default() });
    let decisions = run(&p, &[1.0; 6]);
    assert_eq!(steps(&decisions), [Some(1), None, None, Some(2), None, None]);
    assert_eq!(decisions[0][0].reason(), "layer4 thaws: epoch 1 is over; rates x 0.5");
    let p = thawing(7, Thaw { every: 2, ..Thaw::default() });
    assert_eq!(steps(&run(&p, &[1.0; 7])), [None, Some(1), None, Some(2), None, Some(3), None]);
    // Nothing is thawed for epochs that do not come, and never more than there is.
    let p = thawing(9, Thaw { every: 1, ..Thaw::default() });
    let last = steps(&run(&p, &[1.0; 9]));
    assert_eq!(last, [Some(1), Some(2), Some(3), Some(4), Some(5), None, None, None, None]);
}

#[test]
fn thaws_on_a_plateau_or_after_epochs_whichever_is_first() {
    let plateau = Plateau { patience: 2, ..Plateau::default() };
    let p = thawing(9, Thaw { plateau: Some(plateau.clone()), ..Thaw::default() });
    let decisions = run(&p, &[1.0, 0.9, 0.9, 0.95, 0.8, 0.7, 0.75, 0.75, 0.5]);
    assert_eq!(steps(&decisions), [None, None, None, Some(1), None, None, None, Some(2), None]);
    assert_eq!(decisions[3][0].reason(), "layer4 thaws: loss has not improved for 2 epochs");
    let p = thawing(9, Thaw { plateau: Some(plateau), every: 3, ..Thaw::default() });
    assert_eq!(steps(&run(&p, &[0.9, 0.8, 0.7, 0.6, 0.6, 0.6, 0.5, 0.4, 0.3]))[2], Some(1));
}

#[test]
fn a_thaw_that_makes_things_worse_is_rolled_back_and_the_last() {
    let rollback = Rollback { patience: 2, ..Rollback::default() };
    let p = thawing(10, Thaw { every: 2, rollback: Some(rollback), ..Thaw::default() });
    // Better for a while after the first thaw, worse after the second.
    let decisions = run(&p, &[1.0, 0.9, 0.8, 0.7, 0.9, 0.9, 0.7, 0.6, 0.6, 0.6]);
    assert_eq!(steps(&decisions)[..6], [None, Some(1), None, Some(2), None, Some(1)]);
    assert_eq!(
        decisions[5][0],
        Decision::Restore {
            epoch: 3,
            reason: "thawing layer3 made loss worse: 0.9000 after 2 epochs, 0.7000 before (epoch 4)".into()
        }
    );
    assert!(decisions[6..].iter().all(Vec::is_empty), "{decisions:?}");
}

#[test]
fn the_best_weights_may_be_the_start_of_a_thaw() {
    let p = thawing(6, Thaw { at: vec![3], restore_best: true, ..Thaw::default() });
    let decisions = run(&p, &[1.0, 0.5, 0.8, 0.4, 0.4, 0.4]);
    assert!(matches!(decisions[2][..], [Decision::Restore { epoch: 1, .. }, Decision::Step { step: 1, .. }]));
}

fn stopping(epochs: usize, rule: EarlyStopping, thaw: Option<Thaw>) -> Phase {
    let spec = PhaseSpec { thaw, ..PhaseSpec::new("p", epochs, "head") };
    let recipe = Recipe { early_stopping: Some(rule), ..Recipe::new("r", "resnet18") };
    recipe.phase(spec).resolve(&nets::resnet18()).unwrap().remove(0)
}

#[test]
fn a_phase_ends_early_with_its_best_weights() {
    let p = stopping(9, EarlyStopping { patience: 2, ..EarlyStopping::default() }, None);
    let decisions = run(&p, &[1.0, 0.8, 0.9, 0.85]);
    assert!(decisions[..3].iter().all(Vec::is_empty));
    assert!(matches!(decisions[3][..], [Decision::Restore { epoch: 1, .. }, Decision::Stop { .. }]));
    assert_eq!(decisions[3][1].reason(), "loss has not improved on 0.8000 (epoch 2) for 2 epochs");
    // At its last epoch a phase takes its best weights too.
    let p = stopping(3, EarlyStopping { patience: 5, ..EarlyStopping::default() }, None);
    assert!(matches!(run(&p, &[1.0, 0.8, 0.9])[2][..], [Decision::Restore { epoch: 1, .. }]));
    let rule = EarlyStopping {
        patience: 2,
        restore_best: false,
        metric: Metric::Accuracy,
        ..EarlyStopping::default()
    };
    assert!(matches!(run(&stopping(9, rule, None), &[0.5, 0.5, 0.5])[2][..], [Decision::Stop { .. }]));
    // What is no number stops at once.
    let p = stopping(9, EarlyStopping::default(), None);
    assert!(matches!(run(&p, &[1.0, f64::NAN])[1][..], [.., Decision::Stop { .. }]));
}

#[test]
fn a_thaw_gets_its_own_patience() {
    let rule = EarlyStopping { patience: 2, restore_best: false, ..EarlyStopping::default() };
    let plateau = Plateau { patience: 2, ..Plateau::default() };
    let p = stopping(20, rule, Some(Thaw { plateau: Some(plateau), ..Thaw::default() }));
    let decisions = run(&p, &[1.0; 14]);
    // Five thaws, each two epochs apart, and only then the end.
    assert_eq!(steps(&decisions).iter().flatten().count(), 5);
    assert!(matches!(decisions[12][..], [Decision::Stop { .. }]), "{decisions:?}");
}
