//! Epochs: the same batches for any number of threads, from any batch on, and when files break on the way.

use std::sync::Arc;

use defrost_augment::{Flip, Key, Op, Pipeline, Resize, ResizeMode, Size};
use tempfile::tempdir;

use super::{class, png, write};
use crate::{Batch, Dataset, Error, Loader, LoaderOptions, NO_LABEL, Options, Sampling, TargetKind, Working};

/// 20 images of 6 x 5 x 3 in memory, two classes; image i has value 10 i.
fn array() -> Arc<Dataset> {
    let pixels = (0..20u8).flat_map(|i| vec![10 * i; 6 * 5 * 3]).collect();
    let labels = (0..20).map(|i| u32::from(i >= 15)).collect();
    Arc::new(Dataset::from_arrays(pixels, [5, 6, 3], labels, vec!["a".into(), "b".into()]).unwrap())
}

fn small(sampling: Sampling, threads: usize) -> LoaderOptions {
    LoaderOptions {
        batch: 6,
        size: Size { width: 4, height: 3 },
        seed: 9,
        threads,
        sampling,
        ..LoaderOptions::train()
    }
}

fn run(loader: &Loader, epoch: u64) -> Vec<Batch> {
    loader.epoch(epoch).collect::<Result<_, _>>().unwrap()
}

#[test]
fn an_epoch_shows_every_sample_once() {
    let loader = Loader::new(array(), Pipeline::default(), small(Sampling::Shuffled, 2)).unwrap();
    let batches = run(&loader, 0);
    assert_eq!((batches.len(), loader.batches(), loader.images()), (4, 4, 20));
    assert_eq!(batches.iter().map(|b| b.n).collect::<Vec<_>>(), [6, 6, 6, 2]);
    let mut seen: Vec<usize> = Vec::new();
    for batch in &batches {
        assert_eq!((batch.h, batch.w, batch.channels), (3, 4, 3));
        assert_eq!(batch.pixels.len(), batch.n * 3 * 4 * 3);
        for (i, &sample) in batch.samples.iter().enumerate() {
            assert!(batch.pixels[i * 36..(i + 1) * 36].iter().all(|&v| v == 10 * sample as u8));
            assert_eq!(batch.labels[i], u32::from(sample >= 15));
        }
        seen.extend(&batch.samples);
    }
    assert_eq!(seen, loader.order(0));
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert_ne!(loader.order(0), loader.order(1));
    let dropped = LoaderOptions { drop_last: true, ..small(Sampling::Shuffled, 0) };
    let dropped = Loader::new(array(), Pipeline::default(), dropped).unwrap();
    assert_eq!((run(&dropped, 0).len(), dropped.images()), (3, 18));
}

#[test]
fn threads_cache_and_interruptions_change_nothing() {
    let folder = tempdir().unwrap();
    class(folder.path(), "a", 20);
    class(folder.path(), "b", 13);
    let dataset = Arc::new(Dataset::open(folder.path(), &Options::default()).unwrap());
    let loader = |threads, ahead, cache_bytes, sampling| {
        let options = LoaderOptions { ahead, cache_bytes, ..small(sampling, threads) };
        Loader::new(Arc::clone(&dataset), Pipeline::train(), options).unwrap()
    };
    for sampling in [Sampling::Shuffled, Sampling::Balanced, Sampling::Sequential] {
        let reference = loader(0, 1, 0, sampling.clone());
        let expected: Vec<Vec<Batch>> = (0..3).map(|epoch| run(&reference, epoch)).collect();
        assert_ne!(expected[0][0].pixels, expected[1][0].pixels, "epochs are augmented differently");
        // No cache, room for some images only, room for all.
        for (threads, ahead, cache) in [(1, 1, 0), (2, 3, 1000), (5, 2, 1 << 20), (3, 100, 1 << 20)] {
            let other = loader(threads, ahead, cache, sampling.clone());
            for (epoch, expected) in expected.iter().enumerate() {
                assert_eq!(&run(&other, epoch as u64), expected, "{threads} threads, epoch {epoch}");
            }
            for first in 0..=expected[1].len() {
                let rest: Vec<Batch> = other.epoch_from(1, first).map(Result::unwrap).collect();
                assert_eq!(rest, expected[1][first..], "from batch {first}");
            }
        }
    }
}

#[test]
fn an_epoch_can_be_left_at_any_time() {
    let options = LoaderOptions { ahead: 2, ..small(Sampling::Shuffled, 3) };
    let loader = Loader::new(array(), Pipeline::train(), options).unwrap();
    for taken in 0..4 {
        let mut batches = loader.epoch(0);
        assert_eq!(batches.by_ref().take(taken).count(), taken);
        drop(batches);
    }
}

#[test]
fn views_are_keyed_by_sample() {
    let loader = Loader::new(array(), Pipeline::train(), small(Sampling::Shuffled, 2)).unwrap();
    for batch in run(&loader, 2) {
        for (i, &sample) in batch.samples.iter().enumerate() {
            let image = loader.dataset().load(sample, None).unwrap();
            let view =
                Pipeline::train().apply(&image, Size { width: 4, height: 3 }, Key::new(9, 2, sample as u64));
            assert_eq!(view.unwrap().data(), &batch.pixels[i * 36..(i + 1) * 36]);
            assert_eq!(loader.view(2, sample).unwrap().data(), &batch.pixels[i * 36..(i + 1) * 36]);
        }
    }
}

#[test]
fn balanced_epochs_and_targets() {
    let loader = Loader::new(array(), Pipeline::default(), small(Sampling::Balanced, 1)).unwrap();
    let ones: u32 = run(&loader, 0).iter().flat_map(|b| b.labels.clone()).sum();
    assert_eq!(ones, 10);
    let targets = (0..40).map(|i| (i % 3 == 0) as u8 as f32).collect();
    let set = Arc::unwrap_or_clone(array());
    let set = set.with_targets(TargetKind::Classes, vec!["x".into(), "y".into()], targets).unwrap();
    assert_eq!(set.class_counts(), [7, 7]);
    let loader = Loader::new(Arc::new(set), Pipeline::default(), small(Sampling::Shuffled, 1)).unwrap();
    for batch in run(&loader, 0) {
        assert_eq!(batch.targets.len(), batch.n * 2);
        for (row, &sample) in batch.targets.chunks(2).zip(&batch.samples) {
            assert_eq!(row, loader.dataset().targets(sample));
        }
    }
    let weights = small(Sampling::ClassWeights(vec![1.0]), 0);
    assert!(matches!(Loader::new(array(), Pipeline::default(), weights), Err(Error::Option { .. })));
}

#[test]
fn files_that_break_during_the_run_are_replaced_or_left_out_and_named() {
    let folder = tempdir().unwrap();
    class(folder.path(), "a", 10);
    class(folder.path(), "b", 10);
    let dataset = Arc::new(Dataset::open(folder.path(), &Options::default()).unwrap());
    write(&folder.path().join("a/3.png"), b"overwritten");
    std::fs::remove_file(folder.path().join("b/7.png")).unwrap();
    let loader = |sampling, threads, strict| {
        let options = LoaderOptions { strict, ..small(sampling, threads) };
        Loader::new(Arc::clone(&dataset), Pipeline::default(), options).unwrap()
    };
    let training = loader(Sampling::Shuffled, 2, false);
    let batches = run(&training, 0);
    assert_eq!(batches.iter().map(|b| b.n).sum::<usize>(), 20, "steps keep their size");
    for batch in &batches {
        assert!(batch.samples.iter().zip(&batch.labels).all(|(&s, &l)| dataset.samples()[s].label == l));
        assert!(!batch.samples.iter().any(|s| [3, 17].contains(s)));
    }
    assert_eq!(batches, run(&loader(Sampling::Shuffled, 0, false), 0), "replacements are keyed too");
    let failures: Vec<String> = training.failures().iter().map(ToString::to_string).collect();
    assert_eq!(failures.len(), 2, "each is named once: {failures:?}");
    assert!(
        failures[0].contains("3.png: no image")
            && failures[1].contains("7.png: cannot be read: there is no such file")
    );
    let measuring = loader(Sampling::Sequential, 2, false);
    let samples: Vec<usize> = run(&measuring, 0).into_iter().flat_map(|b| b.samples).collect();
    assert_eq!(samples, (0..20).filter(|i| ![3, 17].contains(i)).collect::<Vec<_>>());
    let error = loader(Sampling::Sequential, 2, true).epoch(0).find_map(Result::err).unwrap();
    assert!(matches!(&error, Error::Sample(s) if s.path.ends_with("a/3.png")), "{error}");
    // The whole folder is gone.
    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    std::fs::remove_dir_all(folder.path().join("b")).unwrap();
    let mut batches = loader(Sampling::Shuffled, 2, false).epoch(0);
    assert!(matches!(batches.next(), Some(Err(Error::BatchLost { batch: 0, .. }))));
    assert!(batches.next().is_none());
}

#[test]
fn another_pipeline_shares_what_is_decoded() {
    let folder = tempdir().unwrap();
    class(folder.path(), "a", 3);
    class(folder.path(), "b", 3);
    let dataset = Arc::new(Dataset::open(folder.path(), &Options::default()).unwrap());
    let options = LoaderOptions { strict: true, ..small(Sampling::Sequential, 0) };
    let loader = Loader::new(dataset, Pipeline::default(), options).unwrap();
    let before = run(&loader, 0);
    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    std::fs::remove_dir_all(folder.path().join("b")).unwrap();
    let mirrored = Pipeline(vec![Op::FlipHorizontal(Flip { p: 1.0 })]);
    let after = run(&loader.with_pipeline(mirrored).unwrap(), 0);
    assert_eq!(before[0].samples, after[0].samples);
    assert_ne!(before[0].pixels, after[0].pixels);
    assert!(loader.with_pipeline(Pipeline(vec![Op::FlipHorizontal(Flip { p: 2.0 })])).is_err());
}

#[test]
fn the_working_size_is_a_matter_of_options_only() {
    let folder = tempdir().unwrap();
    for name in ["a", "b"] {
        let picture = super::picture(200, 100, [name.as_bytes()[0], 50, 90]);
        write(&folder.path().join(name).join("1.png"), &super::bytes(picture, image::ImageFormat::Png));
    }
    let dataset = Arc::new(Dataset::open(folder.path(), &Options::default()).unwrap());
    let squash =
        Pipeline(vec![Op::Resize(Resize { crop: 1.0, mode: ResizeMode::Squash, ..Resize::default() })]);
    let epoch = |working, cache_bytes| {
        let options = LoaderOptions { working, cache_bytes, ..small(Sampling::Sequential, 1) };
        run(&Loader::new(Arc::clone(&dataset), squash.clone(), options).unwrap(), 0)
    };
    assert_eq!(epoch(Working::Auto, 0), epoch(Working::Shorter(8), 1 << 20));
    let (auto, full) = (&epoch(Working::Auto, 0)[0].pixels, &epoch(Working::Full, 0)[0].pixels);
    assert!(auto.iter().zip(full).all(|(a, b)| a.abs_diff(*b) <= 3), "{auto:?} {full:?}");
}

#[test]
fn images_that_are_quick_to_decode_take_a_quarter_of_the_cache() {
    for (working, each, kept) in [(Working::Full, 60_000, 2), (Working::Shorter(50), 15_000, 8)] {
        let folder = tempdir().unwrap();
        for name in ["a", "b"] {
            for i in 0..5 {
                let picture = super::picture(200, 100, [i, 50, 90]);
                let file = folder.path().join(name).join(format!("{i}.png"));
                write(&file, &super::bytes(picture, image::ImageFormat::Png));
            }
        }
        let dataset = Arc::new(Dataset::open(folder.path(), &Options::default()).unwrap());
        let options = LoaderOptions { working, cache_bytes: 8 * each, ..small(Sampling::Sequential, 0) };
        let loader = Loader::new(dataset, Pipeline::default(), options).unwrap();
        run(&loader, 0);
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!((0..10).filter(|&sample| loader.view(0, sample).is_ok()).count(), kept, "{working:?}");
    }
}

#[test]
fn files_to_predict_have_no_labels() {
    let folder = tempdir().unwrap();
    write(&folder.path().join("x.png"), &png(3));
    let paths = [folder.path().join("x.png"), folder.path().join("missing.png")];
    let set = Arc::new(Dataset::from_files(&paths, vec!["a".into(), "b".into()], Default::default()));
    let loader =
        Loader::new(set, Pipeline::eval(0.875, Default::default()), small(Sampling::Sequential, 1)).unwrap();
    let batches = run(&loader, 0);
    assert_eq!((batches[0].samples.as_slice(), batches[0].labels.as_slice()), (&[0][..], &[NO_LABEL][..]));
    assert!(loader.failures()[0].to_string().contains("missing.png"));
}

#[test]
fn arrays_and_options_are_checked() {
    let classes = || vec!["a".to_owned()];
    assert!(matches!(
        Dataset::from_arrays(vec![0; 11], [2, 2, 3], vec![0], classes()),
        Err(Error::Arrays { .. })
    ));
    assert!(matches!(
        Dataset::from_arrays(vec![0; 12], [2, 2, 3], vec![1], classes()),
        Err(Error::Arrays { .. })
    ));
    assert!(matches!(
        Dataset::from_arrays(vec![0; 20], [2, 2, 5], vec![0], classes()),
        Err(Error::Augment(_))
    ));
    let set = Arc::unwrap_or_clone(array());
    assert!(set.with_targets(TargetKind::Values, vec!["x".into()], vec![1.0]).is_err());
    for options in [
        LoaderOptions { batch: 0, ..small(Sampling::Shuffled, 0) },
        LoaderOptions { size: Size::square(0), ..small(Sampling::Shuffled, 0) },
    ] {
        assert!(matches!(Loader::new(array(), Pipeline::default(), options), Err(Error::Option { .. })));
    }
    // An empty data set has empty epochs.
    let none = Arc::new(array().subset(&[]));
    let loader = Loader::new(none, Pipeline::default(), small(Sampling::Shuffled, 2)).unwrap();
    assert_eq!((loader.batches(), run(&loader, 0).len()), (0, 0));
}
