//! Contact sheets of augmentation.

use crate::{run, stderr, stdout};

/// A picture whose two sides and two diagonals differ.
fn picture(path: &std::path::Path, tint: u8) {
    let colour = |x: u32, y: u32| image::Rgb([(x * 5) as u8, (y * 6) as u8, tint]);
    image::RgbImage::from_fn(48, 40, colour).save(path).unwrap();
}

#[test]
fn a_recipe_and_single_operations_become_sheets() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    picture(&here.join("a.png"), 20);
    picture(&here.join("b.png"), 220);
    let size = |name: &str| image::image_dimensions(here.join(name)).unwrap();

    let small = ["--image-size", "32"];
    let text = stdout(&run(here, &[&["augment", "a.png", "--epochs", "8"], &small[..]].concat(), 0));
    assert_eq!(text.trim(), "sheet.png");
    // Nine pictures in a square of three, each with a line of words, and a title over all.
    assert_eq!(size("sheet.png"), (3 * 40 + 8, 18 + 3 * (40 + 18) + 8));
    run(here, &[&["augment", "a.png", "--epochs", "8", "--output", "again.png"], &small[..]].concat(), 0);
    let read = |name: &str| std::fs::read(here.join(name)).unwrap();
    assert_eq!(read("sheet.png"), read("again.png"), "the same seed, the same pixels");
    let other = ["augment", "a.png", "--epochs", "8", "--output", "other.png", "--seed", "1"];
    run(here, &[&other[..], &small].concat(), 0);
    assert_ne!(read("sheet.png"), read("other.png"));

    // One picture a row of `--op all`, for all that the documentation shows.
    let all = ["augment", "a.png", "b.png", "--op", "all", "--epochs", "2", "--output", "all/"];
    let listed = stdout(&run(here, &[&all[..], &small].concat(), 0));
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/");
    let page = std::fs::read_to_string(format!("{docs}augmentations.md")).unwrap();
    for path in listed.lines() {
        assert!(image::open(here.join(path)).is_ok(), "{path}");
        let shown = format!("images/augment/{}", path.rsplit('/').next().unwrap());
        assert!(page.contains(&format!("({shown})")), "{path} is not in docs/augmentations.md");
        assert!(std::fs::metadata(format!("{docs}{shown}")).unwrap().len() < 100_000, "{shown}");
    }
    assert_eq!(listed.lines().count(), 19);

    // With parameters: nothing is changed where nothing may turn.
    let given =
        ["augment", "a.png", "--op", "rotate={ degrees = 0.0 }", "--output", "still.png", "--epochs", "1"];
    run(here, &[&given[..], &small].concat(), 0);
    let turned = ["augment", "a.png", "--op", "rotate", "--output", "turned.png", "--epochs", "1"];
    run(here, &[&turned[..], &small].concat(), 0);
    assert_ne!(read("still.png"), read("turned.png"));
}

#[test]
fn what_cannot_be_shown_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let here = temp.path();
    picture(&here.join("a.png"), 20);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["augment", "a.png", "--op", "rotat"], 2, "did you mean `rotate`?"),
        (&["augment", "a.png", "--op", "mixup"], 2, "takes two pictures"),
        (&["augment", "a.png", "--op", "rotate={ degree = 3 }"], 2, "did you mean `degrees`?"),
        (&["augment", "a.png", "--op", "rotate={ degrees = 400 }"], 2, "0 to 180"),
        (&["augment", "a.png", "--output", "sheet.txt"], 1, ".png or .jpg"),
        (&["augment", "missing.png"], 1, "missing.png"),
        (&["augment"], 2, "<IMAGE>"),
    ];
    for (arguments, code, part) in cases {
        let text = stderr(&run(here, arguments, *code));
        assert!(text.contains(part), "defrost {arguments:?} does not say `{part}`:\n{text}");
    }
}
