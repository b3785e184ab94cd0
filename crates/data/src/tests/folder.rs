//! Folders: layouts, splits, and what bad ones get.

use std::collections::BTreeSet;
use std::path::Path;

use image::ImageFormat;
use tempfile::{TempDir, tempdir};

use super::{bytes, class, fixture, picture, png, write};
use crate::{
    Dataset, DecodeError, DecodeOptions, Error, Layout, Options, Splits, Verify, Warning, duplicates,
};

fn open(folder: &TempDir) -> Result<Splits, Error> {
    Splits::open(folder.path(), &Options::default())
}

fn names(set: &Dataset) -> Vec<&str> {
    set.samples().iter().map(|s| s.name.as_str()).collect()
}

fn three_classes() -> TempDir {
    let folder = tempdir().unwrap();
    class(folder.path(), "dog", 10);
    class(folder.path(), "ant", 20);
    class(folder.path(), "cat", 5);
    folder
}

#[test]
fn one_tree_is_split_by_class() {
    let folder = three_classes();
    let splits = open(&folder).unwrap();
    assert_eq!(splits.train.classes(), ["ant", "cat", "dog"]);
    assert_eq!((splits.train.class_counts(), splits.val.class_counts()), (vec![16, 4, 8], vec![4, 1, 2]));
    assert_eq!(splits.layout, Layout::Split { fraction: 0.2, seed: 0 });
    assert_eq!(splits.summary(), "35 images, 3 classes, split 28 / 7 (stratified, seed 0)");
    assert!(splits.skipped.is_empty() && splits.warnings.is_empty(), "{:?}", splits.warnings);
    let mut all: BTreeSet<&str> = names(&splits.train).into_iter().collect();
    all.extend(names(&splits.val));
    assert_eq!(all.len(), 35, "the parts do not overlap");
    // Reproducible, also at another place and with another number of threads; another seed is another split.
    let elsewhere = three_classes();
    let again = Splits::open(elsewhere.path(), &Options { threads: 1, ..Options::default() }).unwrap();
    assert_eq!(names(&again.val), names(&splits.val));
    assert_eq!(again.train.fingerprint(), splits.train.fingerprint());
    let other = Splits::open(folder.path(), &Options { seed: 1, ..Options::default() }).unwrap();
    assert_ne!(names(&other.val), names(&splits.val));
    let none = Splits::open(folder.path(), &Options { val_fraction: 0.0, ..Options::default() }).unwrap();
    assert_eq!((none.train.len(), none.val.len()), (35, 0));
    let error =
        Splits::open(folder.path(), &Options { val_fraction: 1.0, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("val_fraction"));
}

#[test]
fn two_folders_are_two_parts_whatever_their_names() {
    for (train, val) in [("train", "val"), ("Training", "valid"), ("train", "validation"), ("train", "TEST")]
    {
        let folder = tempdir().unwrap();
        for name in ["a", "b"] {
            class(&folder.path().join(train), name, 3);
            class(&folder.path().join(val), &format!("{name}/deep/er"), 2);
        }
        let splits = open(&folder).unwrap();
        assert_eq!((splits.train.len(), splits.val.len()), (6, 4));
        assert_eq!(splits.layout, Layout::Folders { train: train.into(), val: val.into() });
        assert_eq!(names(&splits.train)[0], format!("{train}/a/0.png"));
        assert_eq!(Dataset::open(folder.path(), &Options::default()).unwrap().len(), 4);
    }
    // `test` is validation only where there is nothing else.
    let folder = tempdir().unwrap();
    for part in ["train", "val", "test"] {
        class(&folder.path().join(part), "a", 1);
        class(&folder.path().join(part), "b", 1 + part.len());
    }
    let splits = open(&folder).unwrap();
    assert_eq!(splits.layout, Layout::Folders { train: "train".into(), val: "val".into() });
    // `train` alone is split; a class named `train` among others is a class.
    let folder = tempdir().unwrap();
    class(&folder.path().join("train"), "a", 5);
    class(&folder.path().join("train"), "b", 5);
    assert_eq!(open(&folder).unwrap().train.classes(), ["a", "b"]);
    class(folder.path(), "bus", 5);
    assert_eq!(open(&folder).unwrap().train.classes(), ["bus", "train"]);
}

#[test]
fn paths_that_are_no_image_folders() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let text = |path: &Path| Splits::open(path, &Options::default()).unwrap_err().to_string();
    assert!(text(&missing).contains("nowhere") && text(&missing).contains("photos/cat/one.jpg"));
    assert!(matches!(Splits::open(&missing, &Options::default()), Err(Error::NotFound { .. })));
    assert!(matches!(open(&folder), Err(Error::Empty { .. })));
    write(&folder.path().join("a.png"), &png(1));
    assert!(text(&folder.path().join("a.png")).contains("is a file"));
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, Error::NoClassFolders { images: 1, first, .. } if first == "a.png"), "{error}");
    let folder = tempdir().unwrap();
    class(&folder.path().join("val"), "a", 1);
    assert!(matches!(open(&folder), Err(Error::NoTrainPart { val, .. }) if val == "val"));
    let folder = tempdir().unwrap();
    write(&folder.path().join("cat/notes.txt"), b"nothing here");
    assert!(matches!(open(&folder), Err(Error::Empty { .. })));
}

#[test]
fn classes_that_cannot_be_learned() {
    let folder = tempdir().unwrap();
    class(folder.path(), "only", 5);
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, Error::OneClass { class, .. } if class == "only"), "{error}");
    // No readable image, and no file at all.
    class(folder.path(), "good", 5);
    write(&folder.path().join("owl/1.jpg"), b"not a jpeg");
    let error = open(&folder).unwrap_err();
    assert!(matches!(&error, Error::EmptyClass { class, skipped: 1, .. } if class == "owl"), "{error}");
    assert!(error.to_string().contains("1 file was skipped"), "{error}");
    std::fs::remove_file(folder.path().join("owl/1.jpg")).unwrap();
    assert!(matches!(open(&folder), Err(Error::EmptyClass { class, skipped: 0, .. }) if class == "owl"));
    // Only in val.
    let folder = tempdir().unwrap();
    for name in ["a", "b"] {
        class(&folder.path().join("train"), name, 2);
        class(&folder.path().join("val"), name, 2);
    }
    class(&folder.path().join("val"), "c", 1);
    assert!(matches!(open(&folder), Err(Error::OnlyInValidation { class, .. }) if class == "c"));
    // Only in train is a warning.
    let folder = tempdir().unwrap();
    for name in ["a", "b"] {
        class(&folder.path().join("train"), name, 2);
    }
    class(&folder.path().join("val"), "a", 2);
    let warnings = open(&folder).unwrap().warnings;
    assert!(warnings.contains(&Warning::NotInValidation { classes: vec!["b".into()] }), "{warnings:?}");
}

#[test]
fn unreadable_files_are_skipped_named_and_counted() {
    let folder = three_classes();
    let at = |name: &str| folder.path().join(name);
    let jpeg = bytes(picture(64, 64, [9, 9, 9]), ImageFormat::Jpeg);
    write(&at("cat/half.jpg"), &jpeg[..jpeg.len() / 2]);
    write(&at("cat/text.png"), b"this is text");
    write(&at("dog/zero.png"), b"");
    write(&at("dog/phone.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1");
    // These are fine: a JPEG called .png, an image without an extension, other files.
    write(&at("dog/really-a-jpeg.png"), &jpeg);
    write(&at("dog/noname"), &png(999));
    write(&at("dog/readme.txt"), b"text");
    write(&at("dog/.DS_Store"), b"x");
    let mut moving = std::fs::read(fixture("animated.gif")).unwrap();
    moving.push(0);
    write(&at("dog/moving.gif"), &moving);
    for verify in [Verify::Auto, Verify::Full, Verify::Quick] {
        let splits = Splits::open(folder.path(), &Options { verify, ..Options::default() }).unwrap();
        let skipped: Vec<String> = splits.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped.len(), 4, "{skipped:?}");
        for (name, reason) in [
            ("half.jpg", "end of the file is missing"),
            ("text.png", "no image"),
            ("zero.png", "empty"),
            ("phone.heic", "HEIC"),
        ] {
            assert!(skipped.iter().any(|s| s.contains(name) && s.contains(reason)), "{name}: {skipped:?}");
        }
        assert_eq!(splits.train.len() + splits.val.len(), 38);
        assert!(splits.summary().contains("4 skipped"));
        assert!(splits.warnings.contains(&Warning::OtherFiles { files: vec!["dog/readme.txt".into()] }));
        assert!(splits.warnings.contains(&Warning::Animated { files: vec!["dog/moving.gif".into()] }));
        let error = Splits::open(folder.path(), &Options { verify, strict: true, ..Options::default() });
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Strict { skipped } if skipped.len() == 4));
        assert!(error.to_string().contains("half.jpg"), "{error}");
    }
    // Names only: nothing is opened, but what has no bytes is no image.
    let splits =
        Splits::open(folder.path(), &Options { verify: Verify::Names, ..Options::default() }).unwrap();
    assert_eq!(splits.skipped.len(), 1);
    // The limit on pixels holds for folders too.
    let decode = DecodeOptions { max_pixels: 1000, ..DecodeOptions::default() };
    let splits = Splits::open(folder.path(), &Options { decode, ..Options::default() }).unwrap();
    assert!(splits.skipped.iter().any(|s| matches!(s.reason, DecodeError::TooLarge { limit: 1000, .. })));
}

#[test]
fn damage_that_only_decoding_finds() {
    let folder = three_classes();
    let mut damaged = png(77);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    write(&folder.path().join("cat/damaged.png"), &damaged);
    assert_eq!(open(&folder).unwrap().skipped.len(), 1);
    let quick =
        Splits::open(folder.path(), &Options { verify: Verify::Quick, ..Options::default() }).unwrap();
    assert!(quick.skipped.is_empty());
}

#[test]
fn images_beside_the_classes_are_named() {
    let folder = three_classes();
    write(&folder.path().join("stray.png"), &png(5000));
    let warnings = open(&folder).unwrap().warnings;
    assert_eq!(warnings, [Warning::TopLevelImages { files: vec!["stray.png".into()] }]);
    assert!(warnings[0].to_string().contains("stray.png"));
    // Also beside train/ and val/, and folders that are no part.
    let folder = tempdir().unwrap();
    for part in ["train", "val"] {
        class(&folder.path().join(part), "a", 2 + part.len());
        class(&folder.path().join(part), "b", 1);
    }
    class(folder.path(), "extra", 2);
    write(&folder.path().join("stray.png"), &png(5000));
    let warnings = open(&folder).unwrap().warnings;
    assert!(warnings.contains(&Warning::TopLevelImages { files: vec!["stray.png".into()] }), "{warnings:?}");
    assert!(warnings.contains(&Warning::OtherFiles { files: vec!["extra/".into()] }), "{warnings:?}");
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_in_circles() {
    use std::os::unix::fs::symlink;
    let folder = three_classes();
    let at = |name: &str| folder.path().join(name);
    symlink("nowhere.png", at("cat/dangling.png")).unwrap();
    symlink("..", at("cat/up")).unwrap();
    symlink("b", at("dog/a")).unwrap();
    symlink("a", at("dog/b")).unwrap();
    symlink(folder.path(), at("loop")).unwrap();
    symlink("gone", at("ghost")).unwrap();
    // A good link is followed.
    symlink(at("cat/0.png"), at("cat/linked.png")).unwrap();
    let splits = open(&folder).unwrap();
    let reason = |name: &str| {
        let found = splits.skipped.iter().find(|s| s.path == at(name));
        &found.unwrap_or_else(|| panic!("{name}: {:?}", splits.skipped)).reason
    };
    assert_eq!(reason("cat/dangling.png"), &DecodeError::DanglingLink);
    assert_eq!(reason("ghost"), &DecodeError::DanglingLink);
    for name in ["cat/up", "dog/a", "dog/b", "loop"] {
        assert!(matches!(reason(name), DecodeError::CircularLink(_)), "{name}: {}", reason(name));
    }
    assert_eq!((splits.skipped.len(), splits.train.len() + splits.val.len()), (6, 36));
}

#[cfg(unix)]
#[test]
fn folders_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = three_classes();
    let locked = folder.path().join("cat/locked");
    write(&locked.join("1.png"), &png(4000));
    let mode = |bits| std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(bits)).unwrap();
    mode(0o000);
    // The superuser may read everything; there is nothing to see then.
    let denied = std::fs::read_dir(&locked).is_err();
    let splits = open(&folder);
    mode(0o755);
    let splits = splits.unwrap();
    if denied {
        assert_eq!((splits.skipped.len(), splits.skipped[0].path.as_path()), (1, locked.as_path()));
        assert!(splits.skipped[0].to_string().contains("denied"), "{}", splits.skipped[0]);
    }
    assert_eq!(splits.train.len() + splits.val.len(), 35 + usize::from(!denied));
}

#[test]
fn the_same_image_in_both_parts_or_under_two_labels() {
    let folder = tempdir().unwrap();
    for part in ["train", "val"] {
        class(&folder.path().join(part), "a", 2);
        write(&folder.path().join(part).join("b/x.png"), &png(2000 + part.len()));
    }
    write(&folder.path().join("train/b/copy.png"), &png(97 * 40));
    let splits = open(&folder).unwrap();
    let pair = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    let both = vec![
        pair("train/a/0.png", "val/a/0.png"),
        pair("train/a/1.png", "val/a/1.png"),
        pair("train/b/copy.png", "val/a/0.png"),
    ];
    assert!(splits.warnings.contains(&Warning::InBothParts { pairs: both }), "{:?}", splits.warnings);
    let twice = vec![pair("train/a/0.png", "train/b/copy.png")];
    assert!(splits.warnings.contains(&Warning::Contradiction { pairs: twice }), "{:?}", splits.warnings);
    assert_eq!(duplicates(&splits.val, &splits.train), [(0, 0), (1, 1)]);
    assert!(splits.warnings.iter().all(|w| !w.to_string().is_empty()));
}

#[test]
fn small_classes_are_mentioned() {
    let folder = tempdir().unwrap();
    class(folder.path(), "a", 40);
    class(folder.path(), "b", 45);
    class(folder.path(), "owl", 3);
    let splits = open(&folder).unwrap();
    assert_eq!(splits.warnings, [Warning::FewImages { class: "owl".into(), images: 2, median: 32 }]);
    let weights = splits.train.class_weights();
    // 32, 36 and 2 images: 70 / (3 * n).
    assert!((weights[0] - 70.0 / 96.0).abs() < 1e-6 && (weights[2] - 70.0 / 6.0).abs() < 1e-5, "{weights:?}");
}

#[test]
fn a_fingerprint_sees_content_names_labels_and_classes() {
    let print = |change: &dyn Fn(&Path)| {
        let folder = three_classes();
        change(folder.path());
        Dataset::open(folder.path(), &Options::default()).unwrap().fingerprint()
    };
    let base = print(&|_| {});
    assert_eq!(base.len(), 64);
    assert_eq!(base, print(&|_| {}));
    let rename = |from: &'static str, to: &'static str| {
        move |p: &Path| std::fs::rename(p.join(from), p.join(to)).unwrap()
    };
    let changes: [&dyn Fn(&Path); 5] = [
        &|p| write(&p.join("cat/0.png"), &png(1234)),
        &|p| write(&p.join("cat/new.png"), &png(1234)),
        &rename("cat/0.png", "cat/zero.png"),
        &rename("cat/0.png", "dog/cat0.png"),
        &rename("cat", "kitten"),
    ];
    let mut seen = BTreeSet::from([base]);
    for (i, change) in changes.into_iter().enumerate() {
        assert!(seen.insert(print(change)), "change {i} went unnoticed");
    }
}

#[test]
fn given_classes_keep_their_labels() {
    let folder = three_classes();
    let with = |classes: &[&str]| Options {
        classes: Some(classes.iter().map(|c| c.to_string()).collect()),
        ..Options::default()
    };
    let set = Dataset::open(folder.path(), &with(&["zebra", "dog", "cat", "ant"])).unwrap();
    assert_eq!(set.class_counts(), [0, 10, 5, 20]);
    let error = Dataset::open(folder.path(), &with(&["dog", "cat"])).unwrap_err();
    assert!(matches!(&error, Error::UnknownClass { class, .. } if class == "ant"), "{error}");
    assert!(matches!(
        Splits::open(folder.path(), &with(&["zebra", "dog", "cat", "ant"])),
        Err(Error::EmptyClass { class, .. }) if class == "zebra"
    ));
    assert!(Dataset::open(folder.path(), &with(&["a", "a"])).is_err());
}
