//! Numbers in words.

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
        assert_eq!(flops(3_600_000_000), "3.6 GFLOP");
    }
}
