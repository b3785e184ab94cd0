// log(1 + x) for x >= 0, with small x not lost beside the 1.
fn log_above_one(x: f32) -> f32 {
    if (x > 0.5) {
        return log(1.0 + x);
    }
    // 2 artanh(x / (2 + x)), the series up to the 11th power; NaN stays NaN.
    let s = x / (2.0 + x);
    let q = s * s;
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)))));
}
