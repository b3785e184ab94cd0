//! Every formula against torchvision's result on one image (reference/torchvision_ops.py).

use std::collections::HashMap;

use crate::warp::{Map, warp};
use crate::{Fill, Image, Interpolation, Size, blur, color, resize};

const SIZE: Size = Size { width: 20, height: 16 };

struct Golden(HashMap<String, Vec<u8>>);

impl Golden {
    fn read() -> Self {
        let text: HashMap<String, String> =
            serde_json::from_str(include_str!("../reference/torchvision.json")).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Self(text.into_iter().map(|(k, v)| (k, v.as_bytes().chunks(2).map(byte).collect())).collect())
    }

    fn image(&self) -> Image {
        Image::new(SIZE.width, SIZE.height, 3, self.0["image"].clone()).unwrap()
    }

    /// At most `off` levels of difference, where `counts` is 255.
    fn holds(&self, case: &str, got: &Image, off: u8, counts: Option<&[u8]>) {
        let expected = &self.0[case];
        assert_eq!(expected.len(), got.data().len(), "{case}");
        for (i, (a, b)) in expected.iter().zip(got.data()).enumerate() {
            if counts.is_none_or(|c| c[i] == 255) {
                assert!(a.abs_diff(*b) <= off, "{case}: value {i} is {b}, torchvision's {a}");
            }
        }
    }
}

#[test]
fn colours() {
    let golden = Golden::read();
    let check = |case: &str, off: u8, f: &dyn Fn(&mut Image)| {
        let mut image = golden.image();
        f(&mut image);
        golden.holds(case, &image, off, None);
    };
    for factor in [0.3, 1.0, 1.7] {
        check(&format!("brightness {factor:?}"), 1, &|i| color::brightness(i, factor));
        check(&format!("contrast {factor:?}"), 1, &|i| color::contrast(i, factor));
        check(&format!("saturation {factor:?}"), 1, &|i| color::saturation(i, factor));
        check(&format!("sharpness {factor:?}"), 1, &|i| color::sharpness(i, factor));
    }
    for turn in [-0.4, 0.1, 0.5] {
        check(&format!("hue {turn:?}"), 1, &|i| color::hue(i, turn));
    }
    check("grayscale", 1, &color::grayscale);
    check("autocontrast", 1, &color::autocontrast);
    check("equalize", 1, &color::equalize);
    for bits in [2, 5] {
        let lost = 8 - bits;
        check(&format!("posterize {bits}"), 0, &|i| color::map(i, |v| f64::from(v as u32 >> lost << lost)));
    }
    check("solarize 128", 0, &|i| color::map(i, |v| if v >= 128.0 { 255.0 - v } else { v }));
    for sigma in [0.5, 1.0, 2.0] {
        check(&format!("blur {sigma:?}"), 1, &|i| blur::gaussian(i, sigma));
    }
}

#[test]
fn geometry() {
    let golden = Golden::read();
    let middle = (10.0, 8.0);
    let still = ((0.0, 0.0), (0.0, 0.0));
    let perspective = Map::perspective(
        [(0.0, 0.0), (19.0, 0.0), (19.0, 15.0), (0.0, 15.0)],
        [(3.0, 2.0), (17.0, 4.0), (19.0, 12.0), (1.0, 14.0)],
    );
    let cases = [
        ("rotate -20.0", Map::affine(-20.0, still.0, 1.0, still.1, middle)),
        ("rotate 33.0", Map::affine(33.0, still.0, 1.0, still.1, middle)),
        // `affine` of torchvision turns clockwise, unlike its `rotate`.
        ("affine", Map::affine(-25.0, (3.0, -2.0), 1.2, (10.0, -5.0), middle)),
        ("shear x 0.25", Map::affine(0.0, still.0, 1.0, (0.25f64.atan().to_degrees(), 0.0), (0.0, 0.0))),
        ("perspective", perspective.unwrap()),
    ];
    for (case, map) in cases {
        let got = warp(&golden.image(), map, Interpolation::Bilinear, &Fill::Constant(vec![0]));
        let inside = &golden.0[&format!("inside {case}")];
        assert!(inside.iter().filter(|v| **v == 255).count() > inside.len() / 3, "{case}");
        golden.holds(case, &got, 2, Some(inside));
    }
}

#[test]
fn sizes() {
    let golden = Golden::read();
    for (name, interpolation) in [("bilinear", Interpolation::Bilinear), ("bicubic", Interpolation::Bicubic)]
    {
        for (height, width) in [(11, 9), (40, 50)] {
            let got = resize(&golden.image(), Size { width, height }, interpolation).unwrap();
            golden.holds(&format!("resize {name} {height} {width}"), &got, 1, None);
        }
    }
}
