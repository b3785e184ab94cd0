//! CSV data sets.

use std::path::PathBuf;

use tempfile::{TempDir, tempdir};

use super::{png, write};
use crate::{
    Columns, Dataset, Error, Hints, Layout, NO_LABEL, Options, Splits, TableOptions, TargetKind, Warning,
};

/// 20 images `img/0.png ...` and a table.
fn table(text: &str) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    for i in 0..20 {
        write(&folder.path().join(format!("img/{i}.png")), &png(100 * i));
    }
    let path = folder.path().join("labels.csv");
    write(&path, text.as_bytes());
    (folder, path)
}

fn rows(header: &str, row: impl Fn(usize) -> String) -> String {
    (0..20).fold(format!("{header}\n"), |text, i| text + &format!("img/{i}.png,{}\n", row(i)))
}

fn open(text: &str, options: &TableOptions) -> Result<Splits, Error> {
    let (_folder, path) = table(text);
    Splits::open_table(&path, options, &Options::default())
}

#[test]
fn one_class_in_a_column() {
    let text = rows("\u{feff}image,label", |i| format!(" {} ", [10, 9, 2][i % 3]));
    let (_folder, path) = table(&text);
    let splits = Splits::open_table(&path, &TableOptions::default(), &Options::default()).unwrap();
    assert_eq!(splits.train.classes(), ["2", "9", "10"], "numbers are sorted as numbers");
    assert_eq!((splits.train.class_counts(), splits.val.class_counts()), (vec![5, 6, 6], vec![1, 1, 1]));
    assert_eq!(splits.train.kind(), TargetKind::Class);
    assert_eq!(splits.train.class_of(0), Some("10"));
    assert_eq!(splits.train.samples()[0].name, "img/0.png");
    assert!(splits.train.load(0, None).is_ok());
    assert_eq!(splits.summary(), "20 images, 3 classes, split 17 / 3 (stratified, seed 0)");
}

#[test]
fn a_column_of_parts() {
    let text = rows("image,label,part", |i| {
        format!("{},{}", ["a", "b"][i % 2], ["train", "train", "Validation", "test"][i / 2 % 4])
    });
    let options = TableOptions { part: Some("part".into()), ..TableOptions::default() };
    let splits = open(&text, &options).unwrap();
    assert_eq!((splits.train.len(), splits.val.len()), (12, 4), "rows of the test part are left out");
    assert_eq!(splits.layout, Layout::Folders { train: "train".into(), val: "val".into() });
    let (_folder, path) = table(&text);
    assert_eq!(Dataset::open_table(&path, &options, &Options::default()).unwrap().len(), 4);
    let only = rows("image,label,part", |i| {
        format!("{},{}", if i == 4 { "c" } else { ["a", "b"][i % 2] }, ["train", "val"][usize::from(i == 4)])
    });
    assert!(matches!(open(&only, &options), Err(Error::OnlyInValidation { class, .. }) if class == "c"));
}

#[test]
fn several_classes_an_image() {
    let tags = rows("image,tags", |i| ["red; big", "big", "", "red;small"][i % 4].into());
    let columns = Columns::Tags { column: "tags".into(), separator: ';' };
    let splits = open(&tags, &TableOptions { columns, ..TableOptions::default() }).unwrap();
    let train = &splits.train;
    assert_eq!(
        (train.classes(), train.kind()),
        (&["big", "red", "small"].map(String::from)[..], TargetKind::Classes)
    );
    assert_eq!((train.len(), splits.val.len()), (16, 4));
    for (i, sample) in train.samples().iter().enumerate() {
        let number: usize = sample.name[4..sample.name.len() - 4].parse().unwrap();
        let expected = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0; 3], [0.0, 1.0, 1.0]][number % 4];
        assert_eq!((train.targets(i), sample.label), (&expected[..], NO_LABEL));
    }
    // The same as columns, whichever they are.
    let text = rows("image,red,big,small", |i| ["1,yes,0", ",TRUE,no", "0,0,", "1.0,0,true"][i % 4].into());
    let indicators = |names: &[&str]| TableOptions {
        columns: Columns::Indicators(names.iter().map(|n| n.to_string()).collect()),
        ..TableOptions::default()
    };
    let all = open(&text, &indicators(&[])).unwrap().train;
    assert_eq!(all.classes(), ["red", "big", "small"]);
    let chosen = open(&text, &indicators(&["big", "red", "small"])).unwrap().train;
    let same = |a: &Dataset, b: &Dataset| (0..a.len()).all(|i| a.targets(i) == b.targets(i));
    assert!(same(&chosen, train) && !same(&all, train));
    // A given order of classes, as from a run.
    let (_folder, path) = table(&text);
    let classes = ["big", "red", "small"].map(String::from).to_vec();
    let options = Options { classes: Some(classes), ..Options::default() };
    assert!(same(&Splits::open_table(&path, &indicators(&[]), &options).unwrap().train, train));
}

#[test]
fn numbers_to_predict() {
    let text = rows("image,x,note,y", |i| format!("{i},n,{}", -0.5 * i as f32));
    let options =
        TableOptions { columns: Columns::Values(vec!["y".into(), "x".into()]), ..TableOptions::default() };
    let splits = open(&text, &options).unwrap();
    assert_eq!((splits.train.kind(), splits.train.classes().len()), (TargetKind::Values, 2));
    for set in [&splits.train, &splits.val] {
        for (i, sample) in set.samples().iter().enumerate() {
            let number: f32 = sample.name[4..sample.name.len() - 4].parse().unwrap();
            assert_eq!(set.targets(i), [-0.5 * number, number]);
        }
    }
    assert!(splits.warnings.is_empty(), "{:?}", splits.warnings);
}

#[test]
fn images_that_cannot_be_used_take_their_targets_with_them() {
    let text = rows("image,v", |i| i.to_string());
    let (folder, path) = table(&text);
    write(&folder.path().join("img/0.png"), b"broken");
    std::fs::remove_file(folder.path().join("img/7.png")).unwrap();
    write(&folder.path().join("img/9.png"), &std::fs::read(folder.path().join("img/8.png")).unwrap());
    let table = TableOptions { columns: Columns::Values(vec!["v".into()]), ..TableOptions::default() };
    let whole = Dataset::open_table(&path, &table, &Options::default()).unwrap();
    assert_eq!((whole.len(), whole.skipped().len()), (18, 2));
    assert!(whole.skipped()[1].to_string().ends_with("img/7.png: cannot be read: there is no such file"));
    assert_eq!(
        (whole.targets(0), whole.targets(6), whole.targets(17)),
        (&[1.0][..], &[8.0][..], &[19.0][..])
    );
    assert!(Splits::open_table(&path, &table, &Options { strict: true, ..Options::default() }).is_err());
    // Two rows with the same image stay in one part, and are no contradiction where there are no labels.
    let splits = Splits::open_table(&path, &table, &Options::default()).unwrap();
    assert!(!splits.warnings.iter().any(|w| matches!(w, Warning::InBothParts { .. })));
}

#[test]
fn tables_that_do_not_fit_name_the_place() {
    let text = |result: Result<Splits, Error>| result.unwrap_err().to_string();
    let plain = TableOptions::default();
    let good = rows("image,label", |i| ["a", "b"][i % 2].into());
    let missing = TableOptions { image: "file".into(), ..plain.clone() };
    let error = text(open(&good, &missing));
    assert!(error.contains("no column `file`") && error.contains("`image`, `label`"), "{error}");
    for (table, options, parts) in [
        (good.replace("img/3.png,b", "img/3.png,"), plain.clone(), ["line 5", "`img/3.png` has no label"]),
        (good.replace("img/3.png,b", "img/3.png"), plain.clone(), ["line 5", "fields"]),
        (
            rows("image,label", |i| format!("{i}.5")),
            plain.clone(),
            ["20 different numbers for 20", "t4-regression"],
        ),
        (good.replace("img/", "jpg/"), plain.clone(), ["no image can be used", "--images"]),
        (good.replace("img/3.png", "img/2.png"), plain.clone(), ["line 5", "is in line 4 already"]),
        ("image,label\n".into(), plain.clone(), ["line 1", "no rows"]),
        (
            rows("image,v", |i| if i == 2 { "nan".into() } else { "1".into() }),
            TableOptions { columns: Columns::Values(vec!["v".into()]), ..plain.clone() },
            ["line 4", "`v` is `nan`, not a number"],
        ),
        (
            rows("image,v", |i| if i == 2 { "7".into() } else { "1".into() }),
            TableOptions { columns: Columns::Indicators(vec!["v".into()]), ..plain.clone() },
            ["line 4", "not 0 or 1"],
        ),
        (rows("image,label", |_| "a".into()), plain.clone(), ["labels.csv", "one class only"]),
    ] {
        let error = text(open(&table, &options));
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    }
    let nowhere = Splits::open_table("no/table.csv".as_ref(), &plain, &Options::default());
    assert!(matches!(nowhere, Err(Error::NotFound { .. })));
}

/// What is found in a table of which nothing is said.
fn found(text: &str, hints: &Hints) -> Result<TableOptions, Error> {
    let (_folder, path) = table(text);
    TableOptions::find(&path, hints)
}

fn hints(kind: TargetKind) -> Hints {
    Hints::new(kind)
}

#[test]
fn columns_are_found_by_their_names_and_cells() {
    let class = Hints::default();
    let options = found(
        &rows("fname;Breed;weight", |i| format!("{};3", ["a", "b"][i % 2])).replace("png,", "png;"),
        &class,
    );
    let options = options.unwrap();
    assert_eq!((options.image.as_str(), options.delimiter), ("fname", ';'));
    assert_eq!(options.columns, Columns::Class("Breed".into()));
    assert_eq!(options.to_string(), "images in `fname`, classes in `Breed`");
    // The only column that is left, whatever its name; a column of parts by its name and its cells.
    let options =
        found(&rows("image,what,is_valid", |i| format!("x{},{}", i % 2, i % 3 == 0)), &class).unwrap();
    assert_eq!((options.columns, options.part.as_deref()), (Columns::Class("what".into()), Some("is_valid")));
    let split = rows("image,what,split", |i| format!("x,{i}"));
    assert!(
        found(&split, &class).unwrap_err().to_string().contains("`image`, `what`, `split`"),
        "no parts, so two columns"
    );
    let ignored = Hints { ignore_part: true, targets: vec!["split".into()], ..class };
    assert_eq!(found(&split, &ignored).unwrap().columns, Columns::Class("split".into()));

    let labels = hints(TargetKind::Classes);
    let tags = |text: &str| match found(text, &labels).unwrap().columns {
        Columns::Tags { column, separator } => (column, separator),
        other => panic!("{other:?}"),
    };
    assert_eq!(tags(&rows("image,tags", |i| ["red big", "big", ""][i % 3].into())), ("tags".into(), ' '));
    assert_eq!(tags(&rows("image,tags,note", |_| "sea lion|cat,z".into())), ("tags".into(), '|'));
    assert_eq!(tags(&rows("image,labels", |_| "\"sea lion, cat\"".into())), ("labels".into(), ','));
    let columns =
        found(&rows("image,red,note,big", |i| format!("{},n,{}", i % 2, ["yes", ""][i % 2])), &labels);
    assert_eq!(columns.unwrap().columns, Columns::Indicators(vec!["red".into(), "big".into()]));
    let error = found(&rows("image,a,b", |_| "x,y".into()), &labels).unwrap_err().to_string();
    assert!(error.contains("`--set data.targets=…`") && error.contains("`image`, `a`, `b`"), "{error}");

    let numbers = hints(TargetKind::Values);
    let columns =
        found(&rows("image,age,note,size", |i| format!("{i},n,-{i}.5e-1")), &numbers).unwrap().columns;
    assert_eq!(columns, Columns::Values(vec!["age".into(), "size".into()]));
    assert!(found(&rows("image,age", |_| "old".into()), &numbers).is_err());
    // Of two columns with an image's name that which holds files.
    let columns = found(&rows("path,id,age", |i| format!("{i},7")), &numbers).unwrap();
    assert_eq!(columns.image, "path");
    let missing = found(&rows("image,age", |_| "1".into()), &Hints { image: Some("file".into()), ..numbers });
    assert!(missing.unwrap_err().to_string().contains("no column `file`"));
    let several = Hints { targets: vec!["a".into(), "b".into()], ..Hints::default() };
    let error = found(&rows("image,a,b", |_| "x,y".into()), &several).unwrap_err().to_string();
    assert!(error.contains("binary_cross_entropy"), "{error}");
}

#[test]
fn identifiers_stand_for_files_and_folders_are_given() {
    let (folder, path) =
        table(&rows("image,label", |i| ["a", "b"][i % 2].into()).replace(".png", "").replace("img/", ""));
    let hints = Hints { folder: Some(folder.path().join("img")), ..Hints::default() };
    let options = TableOptions::find(&path, &hints).unwrap();
    let splits = Splits::open_table(&path, &options, &Options::default()).unwrap();
    assert_eq!((splits.train.len() + splits.val.len(), splits.skipped.len()), (20, 0));
}

#[test]
fn a_rare_label_is_learned() {
    for rare in 0..20 {
        let text = rows("image,tags", |i| if i == rare { "common rare".into() } else { "common".into() });
        let columns = Columns::Tags { column: "tags".into(), separator: ' ' };
        let splits = open(&text, &TableOptions { columns, ..TableOptions::default() }).unwrap();
        assert_eq!(splits.train.class_counts()[1], 1, "{rare}");
    }
}
