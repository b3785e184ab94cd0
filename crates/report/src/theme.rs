//! The palette: every colour of the report once, for light and for dark.
//!
//! Plots are drawn in the light colours; [`classes`] then puts a class beside each colour, so that a style sheet can
//! exchange it. Whoever ignores style sheets sees the light colours. Series keep apart for all common kinds of colour
//! blindness: blue and vermilion of Okabe and Ito (jfly.uni-koeln.de/color), and a ramp that also rises in lightness.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// A colour: its class, and what it is on light and on dark ground.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ink {
    name: &'static str,
    light: u32,
    dark: u32,
}

impl Ink {
    /// The colour on light ground, as plots are drawn.
    pub(crate) fn rgb(self) -> RGBColor {
        RGBColor((self.light >> 16) as u8, (self.light >> 8) as u8, self.light as u8)
    }
}

const fn ink(name: &'static str, light: u32, dark: u32) -> Ink {
    Ink { name, light, dark }
}

/// The ground of the page.
pub(crate) const PAPER: Ink = ink("paper", 0xfc_fbf8, 0x13_1518);
/// Text.
pub(crate) const TEXT: Ink = ink("text", 0x1d_1f23, 0xe7_e8ea);
/// Text that is read second.
pub(crate) const MUTED: Ink = ink("muted", 0x62_666d, 0x9b_a1a9);
/// Lines of a grid.
pub(crate) const GRID: Ink = ink("grid", 0xe6_e3db, 0x2a_2d32);
/// Lines that bound something.
pub(crate) const RULE: Ink = ink("rule", 0xc9_c5bb, 0x43_474e);
/// Every other phase's ground, and other quiet surfaces.
pub(crate) const BAND: Ink = ink("band", 0xf3_f1ea, 0x1b_1e22);
/// The validation part, and what is right.
pub(crate) const GOOD: Ink = ink("good", 0x00_68a8, 0x5c_b3ec);
/// The training part, and what is wrong.
pub(crate) const BAD: Ink = ink("bad", 0xbb_4a00, 0xf2_9b57);
/// A thaw.
pub(crate) const THAW: Ink = ink("thaw", 0x9a_3f74, 0xdf_94bd);
/// Text on [`GOOD`] and [`BAD`].
pub(crate) const ON: Ink = ink("on", 0xff_ffff, 0x10_1214);

/// From the input to the output of a network.
const RAMP: [Ink; 8] = [
    ink("r0", 0x3b_3f8f, 0x8f_9bff),
    ink("r1", 0x1f_65a6, 0x63_b0f2),
    ink("r2", 0x0f_8497, 0x47_c6d2),
    ink("r3", 0x1f_8f68, 0x5f_d1a0),
    ink("r4", 0x6b_8f2c, 0xa9_d26a),
    ink("r5", 0xa3_8417, 0xdf_cb58),
    ink("r6", 0xc0_6a14, 0xf4_ab53),
    ink("r7", 0xb5_3d1b, 0xf3_805c),
];

/// The colour of the `i`-th of `n` in an order.
pub(crate) fn ramp(i: usize, n: usize) -> Ink {
    let last = RAMP.len() - 1;
    if n < 2 { RAMP[last] } else { RAMP[(i * last + (n - 1) / 2) / (n - 1)] }
}

fn all() -> impl Iterator<Item = Ink> {
    [PAPER, TEXT, MUTED, GRID, RULE, BAND, GOOD, BAD, THAW, ON].into_iter().chain(RAMP)
}

/// Puts the class of its colour on every element of a drawing.
pub(crate) fn classes(svg: &str) -> String {
    let mut svg = svg.to_owned();
    for i in all() {
        for (attribute, prefix) in [("fill", 'f'), ("stroke", 's')] {
            let plain = format!("{attribute}=\"#{:06X}\"", i.light);
            let classed = format!("{attribute}=\"#{:06x}\" class=\"{prefix}-{}\"", i.light, i.name);
            svg = svg.replace(&plain, &classed);
        }
    }
    svg
}

/// The palette as CSS variables, and the rules that let plots follow them.
pub(crate) fn css() -> String {
    let variables = |dark: bool| {
        all().fold(String::new(), |mut s, i| {
            let _ = write!(s, "--{}:#{:06x};", i.name, if dark { i.dark } else { i.light });
            s
        })
    };
    let mut css = format!(
        ":root{{color-scheme:light dark;{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        variables(false),
        variables(true)
    );
    for i in all() {
        let _ = write!(css, ".f-{0}{{fill:var(--{0})}}.s-{0}{{stroke:var(--{0})}}", i.name);
    }
    css
}

/// The rules of a drawing that stands alone: dark colours for dark ground, a system font.
pub(crate) fn standalone_css() -> String {
    let dark = all().fold(String::new(), |mut s, i| {
        let _ = write!(s, ".f-{0}{{fill:#{1:06x}}}.s-{0}{{stroke:#{1:06x}}}", i.name, i.dark);
        s
    });
    format!("{PLOT_CSS}@media (prefers-color-scheme:dark){{{dark}}}")
}

/// What every plot needs whatever its colours.
pub(crate) const PLOT_CSS: &str = "polyline{stroke-linejoin:round;stroke-linecap:round}\
     .s-thaw{stroke-dasharray:12 10}text{font-variant-numeric:tabular-nums}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_colours_are_one() {
        let lights: Vec<_> = all().map(|i| i.light).collect();
        let distinct: std::collections::HashSet<_> = lights.iter().collect();
        assert_eq!(lights.len(), distinct.len(), "a drawing's colours could not be told apart");
    }

    /// Relative luminance and contrast of WCAG 2.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |c: u32| {
            let channel = |shift: u32| {
                let v = f64::from(c >> shift & 255) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(16) + 0.7152 * channel(8) + 0.0722 * channel(0)
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn text_and_lines_can_be_read() {
        for i in [TEXT, MUTED, GOOD, BAD, THAW] {
            assert!(contrast(i.light, PAPER.light) > 4.5, "{} on light", i.name);
            assert!(contrast(i.dark, PAPER.dark) > 4.5, "{} on dark", i.name);
        }
        for i in RAMP {
            assert!(contrast(i.light, PAPER.light) > 3.0 && contrast(i.dark, PAPER.dark) > 3.0, "{}", i.name);
        }
        for i in [GOOD, BAD] {
            assert!(contrast(ON.light, i.light) > 4.5 && contrast(ON.dark, i.dark) > 4.5, "on {}", i.name);
        }
    }

    #[test]
    fn a_drawing_gets_classes() {
        let svg = classes("<rect fill=\"#0068A8\" stroke=\"none\"/><line stroke=\"#9A3F74\"/>");
        assert!(svg.contains("class=\"f-good\"") && svg.contains("class=\"s-thaw\""));
    }
}
