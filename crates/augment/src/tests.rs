//! Pipelines as a whole: reproducible, checked, round through TOML, and what each operation shows.

use crate::*;

/// A colourful image without any symmetry.
fn photo(width: usize, height: usize, channels: usize) -> Image {
    let data = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [x * 255 / width, y * 255 / height, (x ^ y) % 256, 200]))
        .map(|v| v as u8)
        .collect::<Vec<_>>();
    let data = data.chunks(4).flat_map(|p| p[..channels].to_vec()).collect();
    Image::new(width, height, channels, data).unwrap()
}

fn every_op() -> Pipeline {
    Pipeline(vec![
        Op::RandomResizedCrop(RandomResizedCrop {
            interpolation: RandomInterpolation::Random,
            ..RandomResizedCrop::default()
        }),
        Op::FlipHorizontal(Flip::default()),
        Op::FlipVertical(Flip::default()),
        Op::Rotate(Rotate::default()),
        Op::Affine(Affine::default()),
        Op::Perspective(Perspective::default()),
        Op::ColorJitter(ColorJitter { hue: 0.1, ..ColorJitter::default() }),
        Op::Grayscale(Grayscale::default()),
        Op::GaussianBlur(GaussianBlur::default()),
        Op::RandAugment(RandAugment::default()),
        Op::TrivialAugment(TrivialAugment::default()),
        Op::RandomErasing(RandomErasing::default()),
    ])
}

fn checksum(image: &Image) -> u64 {
    // FNV-1a.
    image.data().iter().fold(0xcbf2_9ce4_8422_2325, |h, &v| (h ^ u64::from(v)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn the_same_key_gives_the_same_pixels_on_any_thread() {
    let pipeline = every_op();
    let image = photo(90, 70, 3);
    let view = |epoch, sample| pipeline.apply(&image, Size::square(48), Key::new(3, epoch, sample)).unwrap();
    let here: Vec<u64> = (0..8).map(|s| checksum(&view(1, s))).collect();
    let there: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).rev().map(|s| scope.spawn(move || (s, s))).collect();
        let mut order: Vec<(u64, u64)> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        order.sort_unstable();
        order
            .into_iter()
            .map(|(s, _)| {
                scope.spawn({
                    let view = &view;
                    move || checksum(&view(1, s))
                })
            })
            .map(|t| t.join().unwrap())
            .collect()
    });
    assert_eq!(here, there);
    let mut distinct = here;
    distinct.extend((0..8).map(|s| checksum(&view(2, s))));
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 16, "epochs and samples must get different views");
}

#[test]
fn operations_draw_from_their_own_numbers() {
    // The flip after a crop with another scale is the same flip.
    let wide = Image::new(64, 64, 1, (0..64 * 64).map(|i| (4 * (i % 64)) as u8).collect()).unwrap();
    for sample in 0..16 {
        let flipped = [0.2, 0.9].map(|least| {
            let crop = RandomResizedCrop { scale: [least, 1.0], ..RandomResizedCrop::default() };
            let pipeline = Pipeline(vec![Op::RandomResizedCrop(crop), Op::FlipHorizontal(Flip::default())]);
            let view = pipeline.apply(&wide, Size::square(32), Key::new(0, 0, sample)).unwrap();
            view.pixel(0, 0)[0] > view.pixel(31, 0)[0]
        });
        assert_eq!(flipped[0], flipped[1]);
    }
}

#[test]
fn every_number_of_channels_and_odd_shapes() {
    for channels in 1..=4 {
        for (w, h) in [(1, 1), (1, 200), (200, 1), (37, 53)] {
            let view =
                every_op().apply(&photo(w, h, channels), Size { width: 20, height: 12 }, Key::new(0, 0, 0));
            let view = view.unwrap();
            assert_eq!((view.width(), view.height(), view.channels()), (20, 12, channels));
        }
    }
}

#[test]
fn crops_have_the_areas_and_ratios_asked_for() {
    // A horizontal and a vertical ramp tell which part was cut.
    let ramp = |f: fn(usize, usize) -> usize| {
        Image::new(200, 200, 1, (0..40_000).map(|i| f(i % 200, i / 200) as u8).collect()).unwrap()
    };
    let (across, down) = (ramp(|x, _| x), ramp(|_, y| y));
    let crop = RandomResizedCrop { scale: [0.25, 0.5], ratio: [0.5, 2.0], ..RandomResizedCrop::default() };
    let pipeline = Pipeline(vec![Op::RandomResizedCrop(crop)]);
    let mut areas = Vec::new();
    for sample in 0..200 {
        let key = Key::new(1, 0, sample);
        let [width, height] = [&across, &down].map(|image| {
            let view = pipeline.apply(image, Size::square(100), key).unwrap();
            let ends = [view.pixel(0, 0)[0], view.pixel(99, 99)[0]].map(f64::from);
            (ends[1] - ends[0]) * 100.0 / 99.0
        });
        let (area, ratio) = (width * height / 40_000.0, width / height);
        assert!((0.24..0.53).contains(&area) && (0.47..2.1).contains(&ratio), "{area} {ratio}");
        areas.push(area);
    }
    let mean = areas.iter().sum::<f64>() / 200.0;
    assert!((mean - 0.375).abs() < 0.02, "{mean}");
}

#[test]
fn the_middle_is_what_evaluation_sees() {
    // 100 x 50, left half black: resized to 112 x 56 and cut to 49 x 49 the edge is in the middle.
    let data = (0..5000).map(|i| if i % 100 < 50 { 0 } else { 255 }).collect();
    let image = Image::new(100, 50, 1, data).unwrap();
    let show = |mode, crop| {
        let resize = Resize { mode, crop, fill: Fill::Constant(vec![7]), ..Resize::default() };
        Pipeline(vec![Op::Resize(resize)]).apply(&image, Size::square(49), Key::new(0, 0, 0)).unwrap()
    };
    for mode in [ResizeMode::Center, ResizeMode::Squash] {
        let view = show(mode, 0.875);
        assert_eq!((view.pixel(20, 24), view.pixel(28, 24)), (&[0u8][..], &[255u8][..]), "{mode:?}");
    }
    // Squash with the whole image keeps both ends; border keeps the shape.
    assert_eq!(show(ResizeMode::Squash, 1.0).pixel(0, 0), [0]);
    let framed = show(ResizeMode::Border, 1.0);
    assert_eq!(
        (framed.pixel(10, 0), framed.pixel(10, 24), framed.pixel(40, 24)),
        (&[7][..], &[0][..], &[255][..])
    );
    for (fill, expected) in [(Fill::Edge, [0, 255]), (Fill::Reflect, [0, 255])] {
        let resize = Resize { mode: ResizeMode::Border, fill, ..Resize::default() };
        let view =
            Pipeline(vec![Op::Resize(resize)]).apply(&image, Size::square(49), Key::new(0, 0, 0)).unwrap();
        assert_eq!([view.pixel(2, 0)[0], view.pixel(46, 48)[0]], expected);
    }
    // No operation that sets the size: the middle of the image.
    let plain = Pipeline::default().apply(&image, Size::square(50), Key::new(0, 0, 0)).unwrap();
    assert_eq!((plain.pixel(24, 9), plain.pixel(25, 9)), (&[0][..], &[255][..]));
}

#[test]
fn jitter_changes_colours_only() {
    let image = photo(32, 32, 3);
    let only = |jitter: ColorJitter| {
        Pipeline(vec![Op::ColorJitter(jitter)]).apply(&image, Size::square(32), Key::new(4, 0, 1)).unwrap()
    };
    let off = ColorJitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0, p: 1.0 };
    assert_eq!(only(off.clone()), image);
    assert_eq!(only(ColorJitter { p: 0.0, ..ColorJitter::default() }), image);
    for jitter in [
        ColorJitter { brightness: 0.5, ..off.clone() },
        ColorJitter { contrast: 0.5, ..off.clone() },
        ColorJitter { saturation: 0.5, ..off.clone() },
        ColorJitter { hue: 0.5, ..off },
    ] {
        assert_ne!(only(jitter.clone()), image, "{jitter:?}");
    }
}

#[test]
fn what_is_out_of_range_is_named() {
    let refused =
        |op: Op| Pipeline(vec![Op::FlipVertical(Flip::default()), op]).check().unwrap_err().to_string();
    let text = refused(Op::FlipHorizontal(Flip { p: 1.5 }));
    assert!(text.contains("operation 1 (flip_horizontal)") && text.contains("`p` is 1.5"), "{text}");
    for op in [
        Op::RandomResizedCrop(RandomResizedCrop { scale: [0.0, 1.0], ..Default::default() }),
        Op::RandomResizedCrop(RandomResizedCrop { ratio: [2.0, 1.0], ..Default::default() }),
        Op::Resize(Resize { crop: 0.0, ..Default::default() }),
        Op::Rotate(Rotate { degrees: f64::NAN, ..Default::default() }),
        Op::Rotate(Rotate { fill: Fill::Constant(vec![]), ..Default::default() }),
        Op::ColorJitter(ColorJitter { hue: 0.6, ..Default::default() }),
        Op::ColorJitter(ColorJitter { contrast: -1.0, ..Default::default() }),
        Op::Affine(Affine { scale: [0.0, 1.0], ..Default::default() }),
        Op::Affine(Affine { shear: [90.0, 0.0], ..Default::default() }),
        Op::Affine(Affine { translate: [0.0, 1.1], ..Default::default() }),
        Op::Perspective(Perspective { distortion: -0.1, ..Default::default() }),
        Op::Grayscale(Grayscale { p: -0.1 }),
        Op::GaussianBlur(GaussianBlur { sigma: [0.0, 1.0], ..Default::default() }),
        Op::RandAugment(RandAugment { magnitude: 31, ..Default::default() }),
        Op::TrivialAugment(TrivialAugment { bins: 1, ..Default::default() }),
        Op::RandomErasing(RandomErasing { value: ErasingValue::Constant(vec![]), ..Default::default() }),
    ] {
        assert!(refused(op.clone()).contains("must be"), "{op:?}");
    }
    let twice = Pipeline(vec![Op::Resize(Resize::default()), Op::RandomResizedCrop(Default::default())]);
    assert_eq!(twice.check(), Err(Error::TwoSizes { first: 0, second: 1 }));
    assert!(Pipeline::train().apply(&photo(4, 4, 3), Size::square(0), Key::new(0, 0, 0)).is_err());
    assert!(every_op().check().is_ok() && every_op().is_random());
    assert!(!Pipeline::eval(0.875, Interpolation::Bicubic).is_random());
}

#[test]
fn recipes_hold_pipelines() {
    #[derive(Debug, PartialEq, serde::Deserialize, serde::Serialize)]
    struct Recipe {
        augment: Pipeline,
    }
    let recipe = Recipe { augment: every_op() };
    let text = toml::to_string(&recipe).unwrap();
    assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe);
    let short: Recipe = toml::from_str(
        "augment = [{ random_resized_crop = { scale = [0.3, 1.0] } }, { flip_horizontal = {} }, \
         { rotate = { degrees = 15, fill = { constant = [124, 116, 104] } } }]",
    )
    .unwrap();
    assert_eq!(short.augment.0[1], Op::FlipHorizontal(Flip { p: 0.5 }));
    assert_eq!(
        short.augment.0[2],
        Op::Rotate(Rotate { degrees: 15.0, fill: Fill::Constant(vec![124, 116, 104]), ..Default::default() })
    );
    for (bad, part) in
        [("augment = [{ rotate = { degree = 3 } }]", "degree"), ("augment = [{ flop = {} }]", "flop")]
    {
        let error = toml::from_str::<Recipe>(bad).unwrap_err();
        assert!(error.to_string().contains(part) && error.span().is_some(), "{error}");
    }
}

#[test]
fn every_operation_alone_changes_some_images_and_keeps_their_shape() {
    let image = photo(40, 30, 3);
    for op in every_op().0 {
        let alone = Pipeline(vec![op.clone()]);
        let size = Size { width: 40, height: 30 };
        let views: Vec<Image> =
            (0..40).map(|s| alone.apply(&image, size, Key::new(2, 0, s)).unwrap()).collect();
        assert!(views.iter().any(|v| *v != image), "{}", op.name());
        assert!(views.iter().all(|v| v.size() == size), "{}", op.name());
        // Grey images and images of one pixel survive it too.
        for tiny in [photo(1, 1, 1), photo(3, 1, 4), photo(1, 5, 2)] {
            for sample in 0..40 {
                let view = alone.apply(&tiny, tiny.size(), Key::new(2, 0, sample)).unwrap();
                assert_eq!((view.size(), view.channels()), (tiny.size(), tiny.channels()));
            }
        }
    }
}

#[test]
fn erased_rectangles_have_the_areas_and_colours_asked_for() {
    let image = Image::filled(50, 40, &[255, 0, 255]).unwrap();
    let erase = |erasing: RandomErasing, sample| {
        let pipeline = Pipeline(vec![Op::RandomErasing(erasing)]);
        pipeline.apply(&image, Size { width: 50, height: 40 }, Key::new(0, 0, sample)).unwrap()
    };
    for sample in 0..30 {
        let view = erase(RandomErasing { p: 1.0, ..Default::default() }, sample);
        let erased: Vec<&[u8]> = view.data().chunks(3).filter(|p| *p != [255, 0, 255]).collect();
        let part = erased.len() as f64 / 2000.0;
        assert!((0.01..0.36).contains(&part), "{part}");
        assert!(erased.iter().all(|p| *p == [124, 116, 104]));
        let noise = erase(RandomErasing { p: 1.0, value: ErasingValue::Noise, ..Default::default() }, sample);
        let changed: Vec<_> =
            noise.data().chunks(3).zip(view.data().chunks(3)).filter(|(n, v)| n != v).collect();
        assert!(changed.iter().all(|(_, v)| *v == [124, 116, 104]), "the same rectangle");
        assert!(changed.iter().any(|(n, _)| *n != changed[0].0));
    }
    let some = (0..200).filter(|s| erase(RandomErasing::default(), *s) != image).count();
    assert!((75..125).contains(&some), "{some}");
}

#[test]
fn affine_maps_stay_within_their_parameters() {
    // One bright pixel in the middle of a dark image of odd size stays there under turns and scales, and moves
    // by at most the part asked for.
    let mut image = Image::filled(41, 31, &[0]).unwrap();
    image.data_mut()[15 * 41 + 20] = 255;
    let black = || Fill::Constant(vec![0]);
    let place = |affine: Affine, sample| {
        let pipeline = Pipeline(vec![Op::Affine(affine)]);
        let view = pipeline.apply(&image, Size { width: 41, height: 31 }, Key::new(0, 0, sample)).unwrap();
        let at = view.data().iter().enumerate().max_by_key(|(_, v)| **v).unwrap().0;
        (at % 41, at / 41)
    };
    let mut places = Vec::new();
    for sample in 0..60 {
        let turn = Affine { degrees: 90.0, scale: [0.9, 1.5], p: 1.0, fill: black(), ..Affine::default() };
        assert_eq!(place(turn.clone(), sample), (20, 15));
        let still = Affine { degrees: 0.0, scale: [1.0; 2], translate: [0.2, 0.1], ..turn };
        places.push(place(still, sample));
    }
    let span = |values: Vec<usize>| (*values.iter().min().unwrap(), *values.iter().max().unwrap());
    let (left, right) = span(places.iter().map(|p| p.0).collect());
    let (top, bottom) = span(places.iter().map(|p| p.1).collect());
    assert!((12..=14).contains(&left) && (26..=28).contains(&right), "{left} {right}");
    assert!((12..=13).contains(&top) && (17..=18).contains(&bottom), "{top} {bottom}");
}

#[test]
fn all_operations_are_named_once_and_can_be_made_certain() {
    let all = Op::all();
    let names: std::collections::BTreeSet<_> = all.iter().map(Op::name).collect();
    assert_eq!(names.len(), 13);
    let image = photo(40, 30, 3);
    for op in all {
        let json = format!("{{\"{}\":{{}}}}", op.name());
        assert_eq!(serde_json::from_str::<Op>(&json).unwrap(), op, "the default");
        let certain = Pipeline(vec![op.clone().always()]);
        let changed =
            |s| certain.apply(&image, Size { width: 40, height: 30 }, Key::new(2, 0, s)).unwrap() != image;
        // An operation may still be drawn so weak that it changes nothing.
        let (times, least) = ((0..40).filter(|s| changed(*s)).count(), if op.is_random() { 32 } else { 0 });
        assert!(times >= least, "{}: {times} of 40", op.name());
    }
}

#[test]
fn a_seed_means_the_same_pixels_for_ever() {
    let image = photo(40, 30, 3);
    for (op, (name, sample, pixels, sum)) in every_op().0.into_iter().zip(FOR_EVER) {
        assert_eq!(op.name(), name);
        let alone = Pipeline(vec![op]);
        let view = |s| alone.apply(&image, Size { width: 40, height: 30 }, Key::new(2, 0, s)).unwrap();
        let first = (0..).find(|s| view(*s) != image).unwrap();
        let view = view(first);
        let got = [view.pixel(5, 5), view.pixel(20, 10), view.pixel(33, 25)].concat();
        // Places count: each value is weighted by its position.
        let total: u64 = view.data().iter().zip(1..).map(|(v, i)| u64::from(*v) * i).sum();
        assert_eq!(first, sample, "{name}");
        // One level, for mathematical libraries that round differently.
        assert!(got.iter().zip(pixels).all(|(a, b)| a.abs_diff(b) <= 1), "{name}: {got:?}");
        assert!(total.abs_diff(sum) < sum / 5000, "{name}: {total}");
    }
}

/// The first sample that each operation changes, three of its pixels, and the sum of all values times their places.
const FOR_EVER: [(&str, u64, [u8; 9], u64); 12] = [
    ("random_resized_crop", 0, [20, 105, 14, 84, 135, 25, 141, 224, 12], 628771913),
    ("flip_horizontal", 1, [216, 42, 39, 121, 85, 25, 38, 212, 31], 670582908),
    ("flip_vertical", 1, [31, 204, 29, 127, 161, 7, 210, 34, 37], 489911106),
    ("rotate", 1, [24, 58, 3, 124, 85, 27, 218, 197, 54], 684588237),
    ("affine", 1, [31, 63, 7, 124, 87, 27, 211, 191, 54], 676011696),
    ("perspective", 1, [24, 23, 6, 124, 87, 27, 216, 239, 62], 692820528),
    ("color_jitter", 0, [80, 88, 66, 151, 133, 102, 215, 221, 145], 983517916),
    ("grayscale", 1, [33, 33, 33, 91, 91, 91, 193, 193, 193], 885894681),
    ("gaussian_blur", 1, [31, 42, 0, 127, 85, 30, 210, 212, 56], 677448981),
    ("rand_augment", 0, [53, 30, 30, 158, 100, 233, 233, 255, 30], 924409310),
    ("trivial_augment", 0, [38, 50, 0, 150, 100, 225, 248, 250, 255], 1036961486),
    ("random_erasing", 1, [31, 42, 0, 127, 85, 30, 210, 212, 56], 694330574),
];
