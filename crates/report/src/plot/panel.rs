//! One pair of axes and what is drawn on them.

use plotters::coord::CoordTranslate;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::types::{RangedCoordf64, RangedCoordi32};
use plotters::prelude::{
    Cartesian2d, Circle, FontTransform, IntoFont, PathElement, Rectangle, ShapeStyle, Text, TextStyle,
};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FINE, Ground, failed};
use crate::theme::{self, Ink};
use crate::{Result, say};

/// The size of text, in pixels.
const SIZE: f64 = 11.5;

/// An axis: its range, and where it is labelled with what.
pub(crate) struct Axis {
    pub(crate) range: (f64, f64),
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Labelled at about `n` round numbers as `label` has it.
    pub(crate) fn linear(range: (f64, f64), n: usize, label: impl Fn(f64) -> String) -> Self {
        let range = if range.1 > range.0 { range } else { (range.0 - 0.5, range.0 + 0.5) };
        let ticks = RangedCoordf64::from(range.0..range.1).key_points(n);
        Self { range, ticks: ticks.into_iter().map(|t| (t, label(t))).collect() }
    }

    /// From 0 to `n` whole things.
    pub(crate) fn whole(n: usize) -> Self {
        let n = i32::try_from(n).unwrap_or(i32::MAX).max(1);
        let ticks = RangedCoordi32::from(0..n).key_points(8);
        Self {
            range: (0.0, f64::from(n)),
            ticks: ticks.iter().map(|&t| (f64::from(t), t.to_string())).collect(),
        }
    }

    /// From `range`, given as logarithms to base ten: at powers of ten, or closer where these would be few.
    pub(crate) fn log(range: (f64, f64)) -> Self {
        if range.1 - range.0 < 2.0 {
            let decades = (range.0.floor() as i32)..=(range.1.floor() as i32);
            let values = decades.flat_map(|p| [1.0, 2.0, 5.0].map(|d| d * 10f64.powi(p)));
            let inside = values.filter(|v| (range.0..=range.1).contains(&v.log10()));
            return Self { range, ticks: inside.map(|v| (v.log10(), say::rate(v))).collect() };
        }
        let powers = (range.0.ceil() as i32)..=(range.1.floor() as i32);
        let step = (powers.clone().count() / 6 + 1) as i32;
        let ticks = powers
            .filter(|p| p % step == 0)
            .map(|p| (f64::from(p), if p == 0 { "1".into() } else { format!("1e{p}") }))
            .collect();
        Self { range, ticks }
    }
}

/// Where text stands beside its point.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    Left,
    Right,
    Below,
    /// On it.
    Middle,
    /// Above, read upwards.
    Upwards,
}

/// A box with axes within a drawing. All lengths are pixels.
pub(crate) struct Panel<'g, 's> {
    ground: &'g Ground<'s>,
    space: Cartesian2d<RangedCoordf64, RangedCoordf64>,
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
    taken: Vec<f64>,
}

impl<'g, 's> Panel<'g, 's> {
    /// Axes between `(left, top)` and `(right, bottom)`; `under` is drawn before the grid.
    pub(crate) fn new(
        ground: &'g Ground<'s>,
        (left, top, right, bottom): (f64, f64, f64, f64),
        x: &Axis,
        y: &Axis,
        under: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let space = Cartesian2d::new(
            x.range.0..x.range.1,
            y.range.0..y.range.1,
            (fine(left)..fine(right), fine(bottom)..fine(top)),
        );
        let panel = Self { ground, space, left, top, right, bottom, taken: Vec::new() };
        under(&panel)?;
        for (t, label) in &y.ticks {
            let (_, py) = panel.at(x.range.0, *t);
            panel.stroke(&[(left, py), (right, py)], theme::GRID, 1.0)?;
            panel.write(label, (left - 7.0, py), Beside::Left, theme::MUTED, SIZE)?;
        }
        for (t, label) in &x.ticks {
            let (px, _) = panel.at(*t, y.range.0);
            panel.stroke(&[(px, bottom), (px, bottom + 4.0)], theme::RULE, 1.0)?;
            panel.write(label, (px, bottom + 8.0), Beside::Below, theme::MUTED, SIZE)?;
        }
        panel.stroke(&[(left, bottom), (right, bottom)], theme::RULE, 1.0)?;
        Ok(panel)
    }

    /// What the horizontal axis counts, below its numbers.
    pub(crate) fn x_name(&self, name: &str) -> Result<()> {
        self.write(
            name,
            ((self.left + self.right) / 2.0, self.bottom + 23.0),
            Beside::Below,
            theme::MUTED,
            SIZE,
        )
    }

    /// What is shown, at the top left.
    pub(crate) fn title(&self, title: &str) -> Result<()> {
        self.write(title, (0.0, self.top - 38.0), Beside::Right, theme::TEXT, 13.0)
    }

    /// Where a value lies, in pixels.
    pub(crate) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (px, py) = self.space.translate(&(x, y));
        (f64::from(px) / f64::from(FINE), f64::from(py) / f64::from(FINE))
    }

    /// A line through values.
    pub(crate) fn line(&self, values: &[(f64, f64)], ink: Ink, width: f64) -> Result<()> {
        let points: Vec<_> = values.iter().map(|&(x, y)| self.at(x, y)).collect();
        self.stroke(&points, ink, width)
    }

    /// A line through pixels.
    pub(crate) fn stroke(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Result<()> {
        let style = ShapeStyle {
            color: ink.rgb().to_rgba(),
            filled: false,
            stroke_width: (width * f64::from(FINE)).round() as u32,
        };
        let points: Vec<_> = points.iter().map(|&(x, y)| (fine(x), fine(y))).collect();
        self.ground.draw(&PathElement::new(points, style)).map_err(failed)
    }

    /// A filled disc around a value, with a rim of the page's ground.
    pub(crate) fn dot(&self, (x, y): (f64, f64), radius: f64, ink: Ink) -> Result<()> {
        let (px, py) = self.at(x, y);
        for (r, ink) in [(radius + 1.5, theme::PAPER), (radius, ink)] {
            let disc = Circle::new((fine(px), fine(py)), fine(r), ink.rgb().filled());
            self.ground.draw(&disc).map_err(failed)?;
        }
        Ok(())
    }

    /// A filled box between two pixels.
    pub(crate) fn fill(&self, from: (f64, f64), to: (f64, f64), ink: Ink, alpha: f64) -> Result<()> {
        let corners = [(fine(from.0), fine(from.1)), (fine(to.0), fine(to.1))];
        self.ground.draw(&Rectangle::new(corners, ink.rgb().mix(alpha).filled())).map_err(failed)
    }

    /// Text beside a pixel.
    pub(crate) fn write(&self, text: &str, at: (f64, f64), side: Beside, ink: Ink, size: f64) -> Result<()> {
        write(self.ground, text, at, side, ink, size)
    }

    /// The name of a line, right of its end, where no other name stands yet; names come in order of importance.
    /// Says whether there was room.
    pub(crate) fn name_end(&mut self, name: &str, y: f64, ink: Ink) -> Result<bool> {
        const GAP: f64 = 13.0;
        let (_, wanted) = self.at(self.space.get_x_range().end, y);
        let free = |at: f64, taken: &[f64]| taken.iter().all(|t| (t - at).abs() >= GAP);
        let near = [0.0, 5.0, -5.0, 10.0, -10.0, 14.0, -14.0];
        let place = near
            .iter()
            .map(|d| (wanted + d).clamp(self.top, self.bottom - 4.0))
            .find(|&at| free(at, &self.taken));
        let Some(at) = place else { return Ok(false) };
        self.taken.push(at);
        self.write(name, (self.right + 7.0, at), Beside::Right, ink, SIZE)?;
        Ok(true)
    }
}

/// Text beside a pixel of the ground.
pub(crate) fn write(
    ground: &Ground<'_>,
    text: &str,
    (x, y): (f64, f64),
    side: Beside,
    ink: Ink,
    size: f64,
) -> Result<()> {
    let pos = match side {
        Beside::Left => Pos::new(HPos::Right, VPos::Center),
        Beside::Right | Beside::Upwards => Pos::new(HPos::Left, VPos::Center),
        Beside::Below => Pos::new(HPos::Center, VPos::Top),
        Beside::Middle => Pos::new(HPos::Center, VPos::Center),
    };
    // The library divides sizes by 1.24 on the way to SVG.
    let font = ("sans-serif", size * f64::from(FINE) * 1.24).into_font();
    let font = if matches!(side, Beside::Upwards) { font.transform(FontTransform::Rotate270) } else { font };
    let rgb = ink.rgb();
    let style = TextStyle::from(font).color(&rgb).pos(pos);
    ground.draw(&Text::new(text, (fine(x), fine(y)), style)).map_err(failed)
}

/// The width of text of `size` pixels in a common sans-serif font, roughly.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.54
}

/// The first `n` characters.
pub(crate) fn short(text: &str, n: usize) -> String {
    if text.chars().count() <= n {
        return text.to_owned();
    }
    let mut s: String = text.chars().take(n.saturating_sub(1)).collect();
    s.push('…');
    s
}

fn fine(pixels: f64) -> i32 {
    (pixels * f64::from(FINE)).round() as i32
}
