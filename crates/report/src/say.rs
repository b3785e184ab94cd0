//! Numbers and times as a person writes them.

/// Between a number and its unit: they stay on one line.
pub(crate) const NBSP: char = '\u{a0}';

/// A part of 1 in per cent with one decimal, as in `93.4 %`. Never 100.0 or 0.0 unless it is exactly that.
pub(crate) fn percent(part: f64) -> String {
    if !part.is_finite() {
        return "–".into();
    }
    let p = part * 100.0;
    let p = if p < 100.0 && p > 99.9 { 99.9 } else { p };
    let p = if p > 0.0 && p < 0.1 { 0.1 } else { p };
    format!("{p:.1}{NBSP}%")
}

/// A whole number with commas, as in `1,204`.
pub(crate) fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().map_or_else(|_| "?".into(), |n: u64| n.to_string());
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of things, as in `1 epoch` and `2 epochs`.
pub(crate) fn things(n: usize, one: &str, many: &str) -> String {
    format!("{}{NBSP}{}", count(n as u64), if n == 1 { one } else { many })
}

/// A small number as a word, as in a sentence.
pub(crate) fn word(n: usize) -> String {
    const WORDS: [&str; 11] =
        ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    WORDS.get(n).map_or_else(|| count(n as u64), |w| (*w).to_owned())
}

/// A length of time with two units at most, as in `2 min 10 s`.
pub(crate) fn seconds(s: f64) -> String {
    if !s.is_finite() || s < 0.0 {
        return "–".into();
    }
    if s < 10.0 {
        return format!("{s:.1}{NBSP}s");
    }
    let s = s.round() as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}{NBSP}s"),
        (0, m, s) => format!("{m}{NBSP}min {s}{NBSP}s"),
        (h, m, _) => format!("{h}{NBSP}h {m}{NBSP}min"),
    }
}

/// A learning rate in the shortest form with two digits, as in `3e-3` and `2.5e-5`.
pub(crate) fn rate(lr: f64) -> String {
    if lr == 0.0 {
        return "0".into();
    }
    let s = format!("{lr:.1e}");
    s.replace(".0e", "e")
}

/// Bytes in a unit of 1000, as in `410 MB`.
pub(crate) fn bytes(n: usize) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB"])
}

/// Floating-point operations, as in `1.2 GFLOP`.
pub(crate) fn flops(n: u64) -> String {
    scaled(n as f64, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"])
}

/// A loss or another number of which four digits are enough.
pub(crate) fn number(x: f64) -> String {
    if !x.is_finite() {
        return "–".into();
    }
    match x.abs() {
        0.0 => "0".into(),
        a if !(0.001..100_000.0).contains(&a) => format!("{x:.2e}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 10.0 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

fn scaled(mut x: f64, units: &[&str]) -> String {
    let mut i = 0;
    while x >= 999.5 && i + 1 < units.len() {
        x /= 1000.0;
        i += 1;
    }
    let digits = usize::from(x < 9.95 && i > 0);
    format!("{x:.digits$}{NBSP}{}", units[i])
}

/// The interval that holds the true part with 95 % probability when `hits` of `n` were seen (Wilson 1927).
pub(crate) fn wilson(hits: usize, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, p, z) = (n as f64, hits as f64 / n as f64, 1.959_964);
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + z * z / n;
    ((centre - half) / whole, (centre + half) / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let plain = |s: String| s.replace(NBSP, " ");
        assert_eq!(plain(percent(0.9336)), "93.4 %");
        assert_eq!(plain(percent(0.99999)), "99.9 %");
        assert_eq!(plain(percent(1.0)), "100.0 %");
        assert_eq!(plain(percent(0.0001)), "0.1 %");
        assert_eq!(count(1_234_567_u64), "1,234,567");
        assert_eq!(count(12_u64), "12");
        assert_eq!(plain(seconds(130.2)), "2 min 10 s");
        assert_eq!(plain(seconds(7_380.0)), "2 h 3 min");
        assert_eq!(plain(seconds(4.25)), "4.2 s");
        assert_eq!(rate(3e-3), "3e-3");
        assert_eq!(rate(2.5e-5), "2.5e-5");
        assert_eq!(plain(bytes(410_400_000)), "410 MB");
        assert_eq!(plain(flops(1_234_000_000)), "1.2 GFLOP");
        assert_eq!(plain(things(1, "epoch", "epochs")), "1 epoch");
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn the_interval_is_wilsons() {
        // R: prop.test(225, 241, correct = FALSE)$conf.int
        let (low, high) = wilson(225, 241);
        assert!((low - 0.894_889).abs() < 1e-6 && (high - 0.958_725).abs() < 1e-6, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
