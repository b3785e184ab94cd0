//! Answers against truths.

use super::curves::{BOX, HEIGHT, WIDTH, trimmed};
use super::drawing;
use super::panel::{Axis, Panel, short};
use crate::{Result, say, theme};

/// Points that are drawn at most: of more, evenly many.
const MOST: usize = 1500;

/// The predictions of one number over its truths, `(truth, prediction)`; nothing where there is none.
pub(crate) fn scatter(name: &str, pairs: &[(f64, f64)]) -> Result<Option<String>> {
    let pairs: Vec<_> = pairs.iter().copied().filter(|(t, p)| t.is_finite() && p.is_finite()).collect();
    let all = || pairs.iter().flat_map(|&(t, p)| [t, p]);
    let (Some(low), Some(high)) = (all().reduce(f64::min), all().reduce(f64::max)) else { return Ok(None) };
    let air = ((high - low) * 0.04).max(f64::MIN_POSITIVE);
    let range = (low - air, high + air);
    let words = format!(
        "{name}: {} over their truths, from {} to {}.",
        say::things(pairs.len(), "answer", "answers"),
        say::number(low),
        say::number(high)
    );
    let digits = if high - low > 20.0 { 0 } else { 3 };
    drawing(WIDTH, HEIGHT, &words, |ground| {
        let axis = || Axis::linear(range, 6, |v| trimmed(v, digits));
        let panel = Panel::new(ground, BOX, &axis(), &axis(), |_| Ok(()))?;
        panel.title(&format!("{}: answers over truths", short(name, 30)))?;
        panel.x_name("truth")?;
        panel.line(&[(range.0, range.0), (range.1, range.1)], theme::MUTED, 1.0)?;
        let step = pairs.len().div_ceil(MOST).max(1);
        pairs.iter().step_by(step).try_for_each(|&pair| panel.dot(pair, 1.8, theme::GOOD))
    })
    .map(Some)
}
