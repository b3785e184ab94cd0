//! What each stage of a network knows of a task.

use defrost_train::Probes;

use super::panel::{Axis, Beside, Panel};
use super::{alone, drawing};
use crate::{Error, Result, say, theme};

/// The width of the file, in pixels.
const WIDTH: i32 = 640;
/// The height of a stage's row, in pixels.
const ROW: i32 = 22;

/// The accuracy of the linear probe of each stage as SVG: a bar a stage from the input (top) to the output, with its
/// standard error, the place of the cut, and chance. Of the stages that the [advice](Probes::advice) freezes the bars are
/// filled.
///
/// # Errors
/// [`Error::Nothing`] without stages.
pub fn probe_svg(probes: &Probes) -> Result<String> {
    let n = probes.stages.len();
    if n == 0 {
        return Err(Error::Nothing("no stage was probed"));
    }
    let advice = probes.advice();
    let height = 36 + ROW * n as i32 + 44;
    let each: Vec<_> =
        probes.stages.iter().map(|p| format!("{} {}", p.stage, say::percent(p.accuracy))).collect();
    let words = format!("Accuracy of linear probes: {}. {}.", each.join(", "), advice.reason);
    let high = probes.stages.iter().map(|p| p.accuracy + p.error).fold(probes.chance, f64::max);
    let svg = drawing(WIDTH, height, &words, |ground| {
        let x = Axis::linear((0.0, (high * 1.15).clamp(0.05, 1.05)), 6, |v| format!("{:.0} %", 100.0 * v));
        let middle = |i: usize| -(i as f64) - 0.5;
        let ticks = probes.stages.iter().enumerate().map(|(i, p)| (middle(i), p.stage.clone())).collect();
        let y = Axis { range: (-(n as f64), 0.0), ticks };
        let frame = (112.0, 36.0, f64::from(WIDTH) - 56.0, f64::from(height) - 44.0);
        let panel = Panel::new(ground, frame, &x, &y, |_| Ok(()))?;
        panel.write("Linear probes by stage", (0.0, 12.0), Beside::Right, theme::TEXT, 13.0)?;
        panel.x_name(&format!("accuracy on what {} fits leave out; the line is chance", probes.folds))?;
        for (i, probe) in probes.stages.iter().enumerate() {
            let (left, row) = panel.at(0.0, middle(i));
            let (right, _) = panel.at(probe.accuracy, middle(i));
            let (ink, alpha) = if i < advice.freeze { (theme::GOOD, 1.0) } else { (theme::BAD, 0.45) };
            let half = 0.34 * f64::from(ROW);
            panel.fill((left, row - half), (right, row + half), ink, alpha)?;
            let error = probe.error;
            let ends =
                [-error, error].map(|e| panel.at((probe.accuracy + e).clamp(0.0, x.range.1), middle(i)));
            panel.stroke(&ends, theme::TEXT, 1.0)?;
            let beside = (ends[1].0 + 6.0, row);
            panel.write(&say::percent(probe.accuracy), beside, Beside::Right, theme::TEXT, 11.5)?;
        }
        panel.line(&[(probes.chance, 0.0), (probes.chance, -(n as f64))], theme::MUTED, 1.0)?;
        if advice.freeze > 0 {
            let at = -(advice.freeze as f64);
            panel.line(&[(0.0, at), (x.range.1, at)], theme::THAW, 1.5)?;
            let (right, row) = panel.at(x.range.1, at);
            panel.write("cut", (right + 6.0, row), Beside::Right, theme::THAW, 11.5)?;
        }
        Ok(())
    })?;
    Ok(alone(&svg, WIDTH, height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use defrost_train::Probe;

    #[test]
    fn a_bar_a_stage_and_the_cut() {
        let stage = |name: &str, accuracy| {
            let mut probe = Probe::default();
            (probe.stage, probe.accuracy, probe.error) = (name.into(), accuracy, 0.04);
            probe
        };
        let mut probes = Probes::default();
        (probes.folds, probes.chance) = (5, 0.1);
        assert!(matches!(probe_svg(&probes), Err(Error::Nothing(_))));
        probes.stages = vec![stage("stem", 0.3), stage("a<b", 0.8), stage("top", 0.6)];
        let svg = probe_svg(&probes).unwrap();
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        for part in ["stem", "a&lt;b", "80", "cut", "xmlns"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        probes.stages.truncate(1);
        probes.stages[0].accuracy = 0.1;
        assert!(!probe_svg(&probes).unwrap().contains(">cut<"), "nothing is frozen");
    }
}
