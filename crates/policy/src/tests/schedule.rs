//! Schedules at their ends and turns; `formulas` holds them against the original tools.

use crate::{Schedule, Warmup};

fn factor(schedule: &Schedule, p: f64, epoch: usize) -> f64 {
    schedule.at(p, epoch).factor
}

#[test]
fn one_cycle_rises_and_falls_with_momentum_against_it() {
    let s = Schedule::one_cycle();
    assert!((factor(&s, 0.0, 0) - 1.0 / 25.0).abs() < 1e-12);
    assert!((factor(&s, 0.25, 0) - 1.0).abs() < 1e-12);
    assert!((factor(&s, 1.0, 0) - 1e-5).abs() < 1e-12);
    let momentum = |p| s.at(p, 0).momentum.unwrap();
    assert!((momentum(0.0) - 0.95).abs() < 1e-12);
    assert!((momentum(0.25) - 0.85).abs() < 1e-12);
    assert!((momentum(1.0) - 0.95).abs() < 1e-12);
    let plain = Schedule::OneCycle { div: 5.0, div_final: 1e5, pct_start: 0.3, momentum: vec![] };
    assert_eq!(plain.at(0.5, 0).momentum, None);
    // pct_start = 1 never falls.
    let rising = Schedule::OneCycle { div: 25.0, div_final: 1e5, pct_start: 1.0, momentum: vec![] };
    assert_eq!(factor(&rising, 1.0, 0), 1.0);
}

#[test]
fn cosine_restarts_where_a_cycle_ends() {
    let s = Schedule::Cosine { end: 0.0, cycles: 2, mult: 2.0 };
    assert!((factor(&s, 0.0, 0) - 1.0).abs() < 1e-12);
    assert!((factor(&s, 1.0 / 6.0, 0) - 0.5).abs() < 1e-12);
    assert!(factor(&s, 1.0 / 3.0 - 1e-9, 0) < 1e-6);
    assert!((factor(&s, 1.0 / 3.0 + 1e-9, 0) - 1.0).abs() < 1e-6);
    assert!(factor(&s, 1.0, 0).abs() < 1e-12);
}

#[test]
fn schedules_by_epoch_turn_at_epochs() {
    let step = Schedule::Step { every: 2, gamma: 0.1 };
    let got: Vec<_> = (0..5).map(|e| factor(&step, 0.0, e)).collect();
    [1.0, 1.0, 0.1, 0.1, 0.01].iter().zip(got).for_each(|(w, g)| assert!((w - g).abs() < 1e-12));
    let table = Schedule::Table { factors: vec![(10, 0.1), (20, 0.01)] };
    assert_eq!([0, 9, 10, 19, 20, 99].map(|e| factor(&table, 0.0, e)), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
    let milestones = Schedule::MultiStep { at: vec![2, 3], gamma: 0.5 };
    assert_eq!([0, 2, 3].map(|e| factor(&milestones, 0.0, e)), [1.0, 0.5, 0.25]);
    assert_eq!(factor(&Schedule::Exponential { gamma: 0.5 }, 0.0, 3), 0.125);
    assert_eq!(factor(&Schedule::Polynomial { power: 2.0, end: 0.2 }, 0.5, 0), 0.4);
}

#[test]
fn a_warm_up_goes_in_front_of_any() {
    let warmup = Warmup { epochs: 1.0, start: 0.1 };
    let cosine = Schedule::cosine();
    let at = |p: f64| warmup.at(&cosine, p, (p * 5.0) as usize, 5).factor;
    assert!((at(0.0) - 0.1).abs() < 1e-12);
    assert!((at(0.1) - 0.55).abs() < 1e-12);
    assert!((at(0.2) - 1.0).abs() < 1e-12);
    assert!((at(0.6) - 0.5).abs() < 1e-12);
    // Epochs are counted from the phase's start.
    let step = Schedule::Step { every: 2, gamma: 0.1 };
    assert!((warmup.at(&step, 0.4, 2, 5).factor - 0.1).abs() < 1e-12);
}
