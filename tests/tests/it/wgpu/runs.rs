//! Whole runs on both backends.

use std::path::Path;

use defrost::wgpu::{WgpuEngine, testing};
use defrost::{Start, Trained};

use crate::resume::{emoji, fine_tune};

/// How far the losses of a run's first epoch, in which the head trains, may lie apart on two backends, relative to 1 + the
/// loss; and later ones, when all trains (`docs/wgpu.md` has the reasons).
const BOUND: f64 = 1e-5;
const LATER: f64 = 1e-2;

/// Trains into `folder`, on the GPU or on the CPU; with `stop_at`, stops after so many steps. The losses of all steps.
fn train(data: &Path, folder: &Path, gpu: bool, start: Start, stop_at: Option<usize>) -> Vec<f64> {
    // Statistics of six values and Adam's first steps, which take a gradient's sign for its size, both make much of rounding.
    let run = fine_tune(data, folder, 2).set("phase.2.norm", "affine_only").unwrap();
    let run = run.set("phase.2.optimizer", "sgd").unwrap();
    let mut prepared = run.prepare().unwrap();
    if gpu {
        let kernels = testing::shared().expect("asked for before");
        prepared.engine = Box::new(WgpuEngine::with_kernels(kernels));
    }
    crate::resume::train(prepared, start, stop_at).1
}

fn agree(what: &str, cpu: &[f64], gpu: &[f64], bound: f64) {
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    for (i, (cpu, gpu)) in cpu.iter().zip(gpu).enumerate() {
        assert!(
            (cpu - gpu).abs() <= bound * (1.0 + cpu),
            "{what}: step {i} has a loss of {cpu} on the CPU and of {gpu} on the GPU"
        );
    }
}

#[test]
fn the_same_recipe_and_seed_agree_and_checkpoints_move_both_ways() {
    if testing::shared().is_none() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let data = at("data");
    emoji(&data);
    let cpu = train(&data, &at("cpu"), false, Start::Fresh, None);
    let gpu = train(&data, &at("gpu"), true, Start::Fresh, None);
    // An epoch of the head alone, then two of more: a third of the steps each.
    let epoch = cpu.len() / 3;
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() / (1.0 + a);
    let most = |steps: usize| cpu.iter().zip(&gpu).take(steps).map(apart).fold(0.0, f64::max);
    eprintln!(
        "apart by {:.1e} in the first epoch, {:.1e} in all of {} steps",
        most(epoch),
        most(cpu.len()),
        cpu.len()
    );
    agree("first epoch", &cpu[..epoch], &gpu[..epoch], BOUND);
    agree("all steps", &cpu, &gpu, LATER);

    let predict = |name: &str| {
        let picture = std::fs::read_dir(data.join("bird")).unwrap().next().unwrap().unwrap().path();
        Trained::open(&at(name)).unwrap().predict(&[picture]).unwrap()[0].logits.clone()
    };
    // What follows a move is as far off as what follows none.
    let stop = epoch + 2;
    for (name, gpu_first) in [("to-gpu", false), ("to-cpu", true)] {
        let folder = at(name);
        train(&data, &folder, gpu_first, Start::Fresh, Some(stop));
        let rest = train(&data, &folder, !gpu_first, Start::Resume, None);
        agree(name, &cpu[stop..stop + 2], &rest[..2], LATER);
        let (want, got) = (predict("cpu"), predict(name));
        assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 0.2), "{name}: {want:?} {got:?}");
    }
}
