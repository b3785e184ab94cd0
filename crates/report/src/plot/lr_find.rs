//! What a learning-rate finder saw.

use super::panel::{Axis, Beside, Panel, width};
use super::{alone, drawing};
use crate::plot::curves::trimmed;
use crate::{Error, Result, say, theme};

/// The size of the file of its own, in pixels.
const SIZE: (i32, i32) = (640, 340);

/// The plot of a learning-rate finder as SVG: the loss over the rate, the rate on a logarithmic axis, suggested rates
/// marked.
///
/// `points` are pairs of learning rate and loss in the order in which they were tried; `suggestions` are names and
/// rates, as in `("steepest", 2e-3)`. What is no positive rate or no finite loss is left out. A loss that explodes does
/// not flatten the rest: the axis ends a little above the loss at the start.
///
/// # Errors
/// [`Error::Nothing`] with fewer than two points.
pub fn lr_find_svg(points: &[(f64, f64)], suggestions: &[(&str, f64)]) -> Result<String> {
    let svg = lr_find(points, suggestions, SIZE)?;
    Ok(alone(&svg, SIZE.0, SIZE.1))
}

/// The plot for the page, in a size.
pub(crate) fn lr_find(
    points: &[(f64, f64)],
    suggestions: &[(&str, f64)],
    (w, h): (i32, i32),
) -> Result<String> {
    let usable = points.iter().filter(|(lr, loss)| *lr > 0.0 && lr.is_finite() && loss.is_finite());
    let values: Vec<_> = usable.map(|&(lr, loss)| (lr.log10(), loss)).collect();
    let [first, .., last] = values[..] else { return Err(Error::Nothing("fewer than two rates were tried")) };
    let low = values.iter().map(|v| v.1).fold(f64::INFINITY, f64::min);
    let early = values.iter().take(values.len().div_ceil(4)).map(|v| v.1).fold(low, f64::max);
    let most = values.iter().map(|v| v.1).fold(low, f64::max);
    let span = (early - low).max(most.abs() * 1e-3).max(1e-9);
    let high = most.min(early + 0.6 * span);
    let (bottom, top) = (low - 0.08 * span, high + 0.08 * span);

    let mut named: Vec<_> = suggestions.iter().filter(|(_, lr)| *lr > 0.0 && lr.is_finite()).collect();
    named.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut words = format!(
        "Loss over learning rates from {} to {}.",
        say::rate(10f64.powf(first.0)),
        say::rate(10f64.powf(last.0))
    );
    named.iter().for_each(|(name, lr)| words += &format!(" {name}: {}.", say::rate(*lr)));

    drawing(w, h, &words, |ground| {
        let x = Axis::log((first.0.min(last.0), first.0.max(last.0)));
        let y = Axis::linear((bottom, top), 6, |v| trimmed(v, 3));
        let frame = (46.0, 36.0 + 15.0 * named.len() as f64, f64::from(w) - 16.0, f64::from(h) - 44.0);
        let panel = Panel::new(ground, frame, &x, &y, |_| Ok(()))?;
        panel.write("Loss by learning rate", (0.0, 12.0), Beside::Right, theme::TEXT, 13.0)?;
        panel.x_name("learning rate")?;
        // Where the loss leaves the plot, the line ends at its upper edge.
        let mut inside: Vec<_> = values.iter().take_while(|v| v.1 <= top).copied().collect();
        if let (Some(&a), Some(&b)) = (inside.last(), values.get(inside.len())) {
            let part = (top - a.1) / (b.1 - a.1);
            inside.push((a.0 + part * (b.0 - a.0), top));
        }
        for (i, (name, lr)) in named.iter().enumerate() {
            let (px, _) = panel.at(lr.log10().clamp(x.range.0, x.range.1), bottom);
            // A row for each name, the smallest rate's at the top: so no line crosses a name.
            let row = panel.top - 10.0 - 15.0 * (named.len() - 1 - i) as f64;
            panel.stroke(&[(px, row - 4.0), (px, panel.bottom)], theme::THAW, 1.25)?;
            let text = format!("{name} {}", say::rate(*lr));
            let fits = px + 5.0 + width(&text, 11.5) < f64::from(w);
            let (side, shift) = if fits { (Beside::Right, 5.0) } else { (Beside::Left, -5.0) };
            panel.write(&text, (px + shift, row), side, theme::THAW, 11.5)?;
        }
        panel.line(&inside, theme::GOOD, 2.0)
    })
}
