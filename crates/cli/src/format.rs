//! Numbers in words.

use defrost::policy::Metric;

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as `1.2 MB`.
pub(crate) fn bytes(n: usize) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// Operations as `1.2 GFLOP`.
pub(crate) fn flops(n: u64) -> String {
    scaled(n as f64, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"])
}

/// Seconds as `0.6 s`, `46 s`, `2 min 05 s`, `1 h 03 min`.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() || s < 0.0 => "?".into(),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s if s < 3570.0 => format!("{} min {:02} s", s.round() as u64 / 60, s.round() as u64 % 60),
        s => format!("{} h {:02} min", (s / 60.0).round() as u64 / 60, (s / 60.0).round() as u64 % 60),
    }
}

/// A part of 1 as `93.4 %`.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// A measured number with four digits, as `1,204`, `34.21`, `0.08214`.
pub(crate) fn number(x: f64) -> String {
    match x.abs() {
        _ if !x.is_finite() => x.to_string(),
        a if (999.5..1e15).contains(&a) => {
            format!("{}{}", if x < 0.0 { "-" } else { "" }, thousands(a.round() as usize))
        }
        0.0 => "0".into(),
        a if !(1e-4..1e15).contains(&a) => format!("{x:.3e}"),
        a => format!("{x:.0$}", (3 - a.log10().floor() as i32).clamp(0, 8) as usize),
    }
}

/// A metric as it is usually told: errors and losses as numbers, all others as parts of 1.
pub(crate) fn metric(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Loss | Metric::TrainLoss => format!("{value:.3}"),
        Metric::Mae | Metric::Rmse => number(value),
        Metric::R2 => format!("{value:.3}"),
        _ => percent(value),
    }
}

/// The name of a metric, as it is usually written.
pub(crate) const fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Map => "mAP",
        Metric::Auc => "AUC",
        Metric::F1 => "F1",
        Metric::F1Micro => "F1 (micro)",
        Metric::F1Weighted => "F1 (weighted)",
        Metric::Mae => "MAE",
        Metric::Rmse => "RMSE",
        Metric::R2 => "R²",
        Metric::Top5 => "top 5",
        other => other.name(),
    }
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!((thousands(7).as_str(), thousands(1_234_567).as_str()), ("7", "1,234,567"));
        assert_eq!((bytes(0).as_str(), bytes(1_250_000).as_str()), ("0 B", "1.2 MB"));
        assert_eq!((seconds(0.62).as_str(), seconds(125.0).as_str()), ("0.6 s", "2 min 05 s"));
        assert_eq!((seconds(3780.0).as_str(), percent(0.9341).as_str()), ("1 h 03 min", "93.4 %"));
        let told = [1204.4, 34.214, -0.082_137, 0.0, 1e-7].map(number);
        assert_eq!(told, ["1,204", "34.21", "-0.08214", "0", "1.000e-7"]);
        assert_eq!((metric(Metric::Map, 0.5), metric(Metric::R2, 0.5)), ("50.0 %".into(), "0.500".into()));
        assert_eq!(flops(3_600_000_000), "3.6 GFLOP");
    }
}
