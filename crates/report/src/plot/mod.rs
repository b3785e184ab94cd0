//! Plots, drawn by `plotters` as SVG.
//!
//! All plots have one size, in which their text is legible both in a column of a wide page and over the width of a
//! phone. `plotters` places things on whole pixels; so that curves are smooth, it is given [`FINE`] pixels for each one.

mod calibration;
mod confusion;
mod curves;
mod drift;
mod lr_find;
mod panel;
mod probe;
mod rates;
mod scatter;

pub(crate) use calibration::calibration;
pub(crate) use confusion::{confusion, tint};
pub(crate) use curves::{HEIGHT, WIDTH, accuracy, both, draws_accuracy, loss};
pub(crate) use drift::drift;
pub(crate) use lr_find::lr_find;
pub use lr_find::lr_find_svg;
pub use probe::probe_svg;
pub(crate) use rates::rates;
pub(crate) use scatter::scatter;

use std::fmt::Write as _;

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};

use crate::theme;
use crate::{Error, Result};

/// `plotters`' pixels for one of ours, along each axis.
const FINE: i32 = 4;

/// The ground of a drawing.
type Ground<'s> = DrawingArea<SVGBackend<'s>, Shift>;

/// Draws `width` by `height` pixels, and says in words what is to be seen.
fn drawing(
    width: i32,
    height: i32,
    words: &str,
    draw: impl FnOnce(&Ground<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let size = ((width * FINE) as u32, (height * FINE) as u32);
        let ground = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&ground)?;
        ground.present().map_err(failed)?;
    }
    let (_, body) = svg.split_once('>').unwrap_or_default();
    let body = body.replace(">\n", ">").replace("\n<", "<").replace(" \"", "\"");
    let body = body.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "");
    let mut words_escaped = String::new();
    // Writing to a string cannot fail.
    let _ = maud::Escaper::new(&mut words_escaped).write_str(words);
    Ok(format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{words_escaped}\">{}",
        width * FINE,
        height * FINE,
        theme::classes(&body)
    ))
}

/// A drawing as a file of its own: with a size, a namespace, a font and colours for light and for dark.
pub(crate) fn alone(svg: &str, width: i32, height: i32) -> String {
    let (head, body) = svg.split_once('>').unwrap_or_default();
    format!(
        "{head} xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui,sans-serif\"><style>{}</style>{body}",
        theme::standalone_css()
    )
}

/// What the drawing library says.
fn failed(e: impl std::fmt::Display) -> Error {
    Error::Draw(e.to_string())
}
