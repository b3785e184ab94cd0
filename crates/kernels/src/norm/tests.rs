//! Normalisation against its definition in double precision.

use super::*;
use crate::Isa;
use crate::testing::{assert_close, filled, random};

/// Channels where a test takes one number of them.
const C: usize = 21;

struct Case {
    x: Vec<f32>,
    g: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

fn case(rows: usize, c: usize) -> Case {
    // A mean that dwarfs the deviation: the hard case for the variance.
    let x = random(rows * c, 1).iter().enumerate().map(|(i, v)| v * 0.1 + (i % c) as f32).collect();
    let weight = random(c, 3).iter().map(|v| v * 3.0).collect();
    Case { x, g: random(rows * c, 2), weight, bias: random(c, 4).iter().map(|v| v + 1.0).collect() }
}

fn column(x: &[f32], channels: usize, c: usize) -> impl Iterator<Item = f64> + Clone {
    x[c..].iter().step_by(channels).map(|&v| f64::from(v))
}

#[test]
fn training_normalises_records_and_differentiates() {
    // The second number fills whole cache lines: results are streamed.
    for (rows, channels) in [(1, 21), (7, 21), (300, 21), (70, 32)] {
        let Case { x, g, weight, bias } = case(rows, channels);
        let other = random(rows * channels, 5);
        let n = rows as f64;
        let ways = [Activation::Identity, Activation::Relu, Activation::Relu6]
            .map(|activation| [(activation, None), (activation, Some(&*other))]);
        for (activation, residual) in ways.into_iter().flatten() {
            let desc = NormDesc::torch(channels);
            let (mut y, mut gi) = (vec![0.0f64; x.len()], vec![0.0f64; x.len()]);
            let (mut gw, mut gb, mut rm, mut rv) =
                (vec![0.0f64; channels], vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
            for c in 0..channels {
                let m = column(&x, channels, c).sum::<f64>() / n;
                let var = column(&x, channels, c).map(|v| (v - m).powi(2)).sum::<f64>() / n;
                let inv = 1.0 / (var + 1e-5f64).sqrt();
                (rm[c], rv[c]) = (0.9 * 0.5 + 0.1 * m, 0.9 * 0.5 + 0.1 * var * n / (n - 1.0).max(1.0));
                let (w, b) = (f64::from(weight[c]), f64::from(bias[c]));
                let hat: Vec<f64> = column(&x, channels, c).map(|v| (v - m) * inv).collect();
                let added = |r: usize| residual.map_or(0.0, |v| f64::from(v[r * channels + c]));
                let value = |r: usize| activation.apply((hat[r] * w + b + added(r)) as f32);
                let masked: Vec<f64> = column(&g, channels, c)
                    .enumerate()
                    .map(|(r, g)| if activation.passes(value(r)) { g } else { 0.0 })
                    .collect();
                gb[c] = masked.iter().sum();
                gw[c] = masked.iter().zip(&hat).map(|(g, h)| g * h).sum();
                for r in 0..rows {
                    y[r * channels + c] = f64::from(value(r));
                    gi[r * channels + c] = w * inv * (masked[r] - gb[c] / n - hat[r] * gw[c] / n);
                }
            }
            for isa in Isa::available() {
                let run = |count: usize| {
                    let threads = Threads::new(count).with_isa(isa);
                    let mut ws = vec![f32::NAN; workspace(rows, channels)];
                    let mut out = filled(x.len(), 0.0);
                    let (mut mean, mut inv_std) = (vec![0.0; channels], vec![0.0; channels]);
                    let (mut running_mean, mut running_var) = (vec![0.5; channels], vec![0.5; channels]);
                    let stats = BatchStats {
                        mean: &mut mean,
                        inv_std: &mut inv_std,
                        running_mean: Some(&mut running_mean),
                        running_var: Some(&mut running_var),
                    };
                    let affine = Affine { weight: &weight, bias: &bias };
                    let epilogue = Epilogue { residual, activation };
                    train(&threads, &desc, epilogue, &x, affine, &mut out, stats, &mut ws);
                    let (mut grad_in, mut grad_weight, mut grad_bias) =
                        (filled(x.len(), 1.0), vec![7.0; channels], vec![7.0; channels]);
                    let mut passed = filled(x.len(), f32::NAN);
                    // With one thread by the output, with two by the input where it says all: the same to the bit.
                    let bias = (count > 1 && residual.is_none()).then_some(&*bias);
                    let incoming = Incoming { grad_out: &g, activation, bias, out: Some(&out) };
                    let wanted = Wanted {
                        grad_in: Some(&mut grad_in),
                        accumulate: true,
                        grad_weight: Some(&mut grad_weight),
                        grad_bias: Some(&mut grad_bias),
                        accumulate_params: false,
                        // On the way, of use to the branch that was added: the rest stays as it is, to the bit.
                        grad_residual: (count > 1 && residual.is_some()).then_some(&mut *passed),
                    };
                    train_grad(&threads, &x, &weight, &mean, &inv_std, incoming, wanted, &mut ws);
                    if count > 1 && residual.is_some() {
                        let g = out.iter().zip(&g).map(|(&y, &g)| if activation.passes(y) { g } else { 0.0 });
                        assert!(
                            g.eq(passed.iter().copied()),
                            "{rows} rows of {channels}, {activation:?}, {isa:?}"
                        );
                    }
                    grad_in.iter_mut().for_each(|v| *v -= 1.0);
                    [out.to_vec(), running_mean, running_var, grad_in.to_vec(), grad_weight, grad_bias]
                };
                let one = run(1);
                let joined = residual.is_some();
                let what = format!("{rows} rows of {channels}, {activation:?}, residual {joined}, {isa:?}");
                assert_close(&one[0], &y, 1e-5, &what);
                assert_close(&one[1], &rm, 1e-6, &what);
                assert_close(&one[2], &rv, 1e-6, &what);
                if rows > 1 {
                    // One row normalises to nothing but rounding, which 1 / sqrt(eps) then blows up.
                    assert_close(&one[3], &gi, 3e-5, &what);
                    assert_close(&one[4], &gw, 3e-5, &what);
                }
                assert_close(&one[5], &gb, 1e-5, &what);
                assert_eq!(run(2), one, "{what}");
            }
        }
    }
}

#[test]
fn evaluation_uses_the_running_statistics_alone() {
    let rows = 50;
    let Case { x, g, weight, bias } = case(rows, C);
    let (mean, var) = (random(C, 8), random(C, 9).iter().map(|v| v + 1.5).collect::<Vec<_>>());
    let desc = NormDesc::keras_mobilenet(C);
    let threads = Threads::new(2);
    let mut ws = vec![f32::NAN; workspace(rows, C)];
    let mut out = vec![0.0; x.len()];
    let affine = Affine { weight: &weight, bias: &bias };
    let act = Activation::Relu;
    let alone = Epilogue { residual: None, activation: act };
    eval(&threads, &desc, alone, &x, affine, &mean, &var, &mut out, &mut ws);
    // The same and another branch.
    let (other, mut joined, mut plain) = (random(x.len(), 5), vec![0.0; x.len()], vec![0.0; x.len()]);
    let both = Epilogue { residual: Some(&other), activation: act };
    eval(&threads, &desc, both, &x, affine, &mean, &var, &mut joined, &mut ws);
    eval(&threads, &desc, Epilogue::default(), &x, affine, &mean, &var, &mut plain, &mut ws);
    assert!(joined.iter().zip(plain.iter().zip(&other)).all(|(j, (p, o))| *j == act.apply(p + o)));
    let (mut grad_in, mut grad_weight, mut grad_bias) = (vec![0.0; x.len()], vec![1.0; C], vec![1.0; C]);
    let incoming = Incoming { grad_out: &g, activation: act, bias: None, out: Some(&out) };
    let wanted = Wanted {
        grad_in: Some(&mut grad_in),
        accumulate: false,
        grad_weight: Some(&mut grad_weight),
        grad_bias: Some(&mut grad_bias),
        accumulate_params: true,
        grad_residual: None,
    };
    eval_grad(&threads, &desc, Some(&x), &weight, &mean, &var, incoming, wanted, &mut ws);
    let (mut gw, mut gb) = (vec![1.0f64; C], vec![1.0f64; C]);
    for i in 0..x.len() {
        let c = i % C;
        let inv = 1.0 / (f64::from(var[c]) + 1e-3).sqrt();
        let hat = (f64::from(x[i]) - f64::from(mean[c])) * inv;
        let y = (hat * f64::from(weight[c]) + f64::from(bias[c])).max(0.0);
        assert!((f64::from(out[i]) - y).abs() < 1e-4, "{i}");
        let g = if out[i] > 0.0 { f64::from(g[i]) } else { 0.0 };
        assert!((f64::from(grad_in[i]) - g * inv * f64::from(weight[c])).abs() < 1e-5, "{i}");
        gw[c] += g * hat;
        gb[c] += g;
    }
    assert_close(&grad_weight, &gw, 1e-5, "scale");
    assert_close(&grad_bias, &gb, 1e-5, "shift");
    // Without the scale's gradient, the input is not needed.
    let mut only_bias = vec![0.0; C];
    let incoming = Incoming { grad_out: &g, activation: Activation::Identity, bias: None, out: None };
    let wanted = Wanted { grad_bias: Some(&mut only_bias), ..Wanted::default() };
    eval_grad(&threads, &desc, None, &weight, &mean, &var, incoming, wanted, &mut ws);
    assert!((f64::from(only_bias[3]) - column(&g, C, 3).sum::<f64>()).abs() < 1e-5);
}

#[test]
fn folding_equals_normalising_after_the_convolution() {
    let desc = NormDesc::torch(C);
    let Case { x: weight, weight: norm_weight, bias: norm_bias, .. } = case(6, C);
    let (mean, var) = (random(C, 8), random(C, 9).iter().map(|v| v + 1.5).collect::<Vec<_>>());
    let conv_bias = random(C, 10);
    for bias in [None, Some(&conv_bias[..])] {
        let norm = Folded {
            affine: Affine { weight: &norm_weight, bias: &norm_bias },
            running_mean: &mean,
            running_var: &var,
            bias,
        };
        let (mut fw, mut fb) = (vec![0.0; weight.len()], vec![0.0; C]);
        fold(&desc, &weight, &norm, &mut fw, &mut fb);
        for i in 0..weight.len() {
            let c = i % C;
            let s = norm_weight[c] / (var[c] + 1e-5).sqrt();
            assert!((fw[i] - s * weight[i]).abs() < 1e-4, "{i}");
            let b = bias.map_or(0.0, |b| b[c]);
            assert!((fb[c] - (norm_bias[c] + s * (b - mean[c]))).abs() < 1e-5);
        }
    }
}
