//! `defrost train --profile`: where the time of a phase's steps went, as tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use defrost::train::{KernelSeconds, Profile};

/// Layers that have a line of their own.
const LAYERS: usize = 20;

/// The tables of a phase.
pub(crate) fn table(profile: &Profile) -> String {
    let Profile { phase, steps, images, seconds, waited, kernels } = profile;
    let each = *steps as f64;
    let (ms, share) = (|s: f64| s * 1e3 / each, |s: f64| 100.0 * s / seconds.max(1e-9));
    let mut out = format!(
        "  profile     phase {}: {steps} steps, {:.2} ms and {:.0} pictures each, {:.1} img/s\n\n",
        phase + 1,
        ms(*seconds),
        *images as f64 / each,
        *images as f64 / seconds.max(1e-9),
    );
    let line = |out: &mut String, name: &str, seconds: f64, more: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "    {name:<34} {:>9.3} ms {:>5.1} %{more}", ms(seconds), share(seconds));
    };
    line(&mut out, "waiting for pictures", *waited, "");
    for (name, sum) in sorted(kernels, |k| match &k.pass {
        Some(pass) => format!("{pass} {}", k.kernel),
        None => k.kernel.clone(),
    }) {
        let rate = match sum.flops {
            0 => String::new(),
            flops => format!(" {:>8.1} GFLOP/s", flops as f64 / sum.seconds.max(1e-9) / 1e9),
        };
        line(&mut out, &name, sum.seconds, &rate);
    }
    line(&mut out, "the rest (targets, copies)", profile.rest(), "");
    out.push_str("\n    layer                                     together          forward     backward\n");
    let layers = sorted(kernels, |k| k.node.clone().unwrap_or_else(|| k.kernel.clone()));
    let (shown, others) = layers.split_at(layers.len().min(LAYERS));
    let others_name = format!("{} others", others.len());
    let others = others.iter().fold(Sum::default(), |sum, (_, other)| sum.and(other));
    let rest = Some((others_name, others)).filter(|(_, sum)| sum.seconds > 0.0);
    for (name, sum) in shown.iter().chain(&rest) {
        let parts = format!(" {:>9.3} ms {:>9.3} ms", ms(sum.seconds - sum.backward), ms(sum.backward));
        line(&mut out, name, sum.seconds, &parts);
    }
    out
}

/// Kernels that are shown as one.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    seconds: f64,
    backward: f64,
    flops: u64,
}

impl Sum {
    fn and(self, other: &Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            backward: self.backward + other.backward,
            flops: self.flops + other.flops,
        }
    }
}

/// Kernels of one name added up, the longest first.
fn sorted(kernels: &[KernelSeconds], name: impl Fn(&KernelSeconds) -> String) -> Vec<(String, Sum)> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for k in kernels {
        let backward = if k.pass.as_deref() == Some("backward") { k.seconds } else { 0.0 };
        let sum = sums.entry(name(k)).or_default();
        *sum = sum.and(&Sum { seconds: k.seconds, backward, flops: k.flops });
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_a_step_by_kernel_and_by_layer() {
        let kernel = |node: Option<&str>, pass: Option<&str>, kernel: &str, flops, seconds| KernelSeconds {
            node: node.map(Into::into),
            pass: pass.map(Into::into),
            kernel: kernel.into(),
            calls: 10,
            flops,
            seconds,
            ..Default::default()
        };
        let kernels = vec![
            kernel(Some("conv1"), Some("forward"), "conv2d", 40_000_000_000, 0.4),
            kernel(Some("fc"), Some("forward"), "gemm", 0, 0.05),
            kernel(Some("fc"), Some("backward"), "gemm", 0, 0.15),
            kernel(None, None, "optimizer", 0, 0.1),
        ];
        let profile = Profile { phase: 1, steps: 10, images: 160, seconds: 1.0, waited: 0.1, kernels };
        let text = table(&profile);
        for expected in [
            "phase 2: 10 steps, 100.00 ms and 16 pictures each, 160.0 img/s",
            "waiting for pictures                  10.000 ms  10.0 %",
            "forward conv2d                        40.000 ms  40.0 %    100.0 GFLOP/s",
            "the rest (targets, copies)            20.000 ms  20.0 %",
            "fc                                    20.000 ms  20.0 %     5.000 ms    15.000 ms",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(text.find("forward conv2d") < text.find("backward gemm"));
        assert!(!text.contains("others"));
    }
}
