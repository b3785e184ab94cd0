//! The confusion matrix as a picture.

use defrost_train::Validation;
use plotters::prelude::Rectangle;
use plotters::style::Color;

use super::panel::{Beside, short, width, write};
use super::{FINE, drawing, failed};
use crate::matrix::Matrix;
use crate::{Result, say, theme};

/// The matrix, its size with it: a row a true class, a column a prediction.
pub(crate) fn confusion(validation: &Validation) -> Result<(String, i32, i32)> {
    const CELL: f64 = 30.0;
    let matrix = Matrix::new(validation);
    let n = matrix.names.len();
    let names: Vec<_> = matrix.names.iter().map(|n| short(n, 18)).collect();
    let longest = names.iter().map(|n| width(n, 11.5)).fold(70.0, f64::max);
    let (left, top) = (longest + 24.0, longest + 12.0);
    let side = CELL * n as f64;
    let (w, h) = ((left + side + 8.0).ceil() as i32, (top + side + 8.0).ceil() as i32);
    let words = format!(
        "Confusion matrix of {}: {} of {} on the diagonal.",
        say::things(n, "class", "classes"),
        say::count(validation.confusion.iter().enumerate().map(|(i, r)| r[i]).sum::<usize>() as u64),
        say::count(validation.images as u64)
    );
    let svg = drawing(w, h, &words, |ground| {
        let text = |s: &str, at, beside, ink| write(ground, s, at, beside, ink, 11.5);
        text("truth ↓", (left - 10.0, top - 24.0), Beside::Left, theme::MUTED)?;
        text("prediction →", (left - 10.0, top - 8.0), Beside::Left, theme::MUTED)?;
        for (i, name) in names.iter().enumerate() {
            let middle = CELL * (i as f64 + 0.5);
            text(name, (left - 10.0, top + middle), Beside::Left, theme::TEXT)?;
            text(name, (left - 1.0 + middle, top - 7.0), Beside::Upwards, theme::TEXT)?;
            for j in 0..n {
                let (x, y) = (left + CELL * j as f64, top + CELL * i as f64);
                let share = matrix.share(i, j);
                let ink = if i == j { theme::GOOD } else { theme::BAD };
                let pixel = |v: f64| (v * f64::from(FINE)).round() as i32;
                let corners = [(pixel(x), pixel(y)), (pixel(x + CELL - 2.0), pixel(y + CELL - 2.0))];
                let ground_ink =
                    if share > 0.0 { ink.rgb().mix(tint(share)) } else { theme::BAND.rgb().mix(1.0) };
                ground.draw(&Rectangle::new(corners, ground_ink.filled())).map_err(failed)?;
                if matrix.counts[i][j] > 0 {
                    let ink = if tint(share) > 0.55 { theme::ON } else { theme::TEXT };
                    let at = (x + CELL / 2.0 - 1.0, y + CELL / 2.0 - 1.0);
                    let count = matrix.counts[i][j].to_string();
                    write(ground, &count, (at.0, at.1), Beside::Middle, ink, 11.0)?;
                }
            }
        }
        Ok(())
    })?;
    Ok((svg, w, h))
}

/// How strong the colour of a share of a row is: the smallest is still seen.
pub(crate) fn tint(share: f64) -> f64 {
    if share > 0.0 { 0.14 + 0.86 * share.min(1.0) } else { 0.0 }
}
