//! Whether the network is as right as it says it is.

use defrost_train::Prediction;

use super::curves::{BOX, HEIGHT, WIDTH};
use super::drawing;
use super::panel::{Axis, Panel};
use crate::{Result, say, theme};

/// Images below which the picture would be noise.
const LEAST: usize = 60;
/// Ranges of confidence.
const BINS: usize = 10;

/// Part of right answers by confidence, and the expected calibration error with it (Guo et al. 2017, ten bins); nothing
/// for few images.
pub(crate) fn calibration(predictions: &[Prediction]) -> Result<Option<(String, f64)>> {
    let mut bins = [(0usize, 0usize, 0.0f64); BINS];
    for p in predictions.iter().filter(|p| p.confidence.is_finite() && !p.path.is_empty()) {
        let confidence = f64::from(p.confidence).clamp(0.0, 1.0);
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + usize::from(p.truth == p.prediction), bin.2 + confidence);
    }
    let images: usize = bins.iter().map(|b| b.0).sum();
    if images < LEAST {
        return Ok(None);
    }
    let error = bins.iter().map(|b| (b.1 as f64 - b.2).abs()).sum::<f64>() / images as f64;
    let words =
        format!("Part of right answers by confidence. The two differ by {} on average.", say::percent(error));
    let svg = drawing(WIDTH, HEIGHT, &words, |ground| {
        let percent = |v: f64| format!("{:.0} %", v * 100.0);
        let (x, y) = (Axis::linear((0.0, 1.0), 6, percent), Axis::linear((0.0, 1.0), 6, percent));
        let panel = Panel::new(ground, BOX, &x, &y, |_| Ok(()))?;
        panel.title("Right answers by confidence")?;
        panel.x_name("confidence")?;
        for (i, &(n, hits, _)) in bins.iter().enumerate().filter(|(_, b)| b.0 > 0) {
            let part = hits as f64 / n as f64;
            let (x0, y0) = panel.at(i as f64 / BINS as f64, part);
            let (x1, y1) = panel.at((i + 1) as f64 / BINS as f64, 0.0);
            // Ranges of few images are pale: their height says little.
            let sure = (n as f64 / (n as f64 + 8.0)).max(0.2);
            panel.fill((x0 + 1.5, y0.min(y1 - 1.0)), (x1 - 1.5, y1), theme::GOOD, 0.85 * sure)?;
        }
        panel.line(&[(0.0, 0.0), (1.0, 1.0)], theme::MUTED, 1.0)
    })?;
    Ok(Some((svg, error)))
}
