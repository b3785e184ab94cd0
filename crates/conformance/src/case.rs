//! A case: a call whose operands say how they are laid out and filled.

use defrost_tensor::{Activation, Call, Layout};

use crate::det::det_f64;

/// One problem of the suite.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// `kernel/what is special about it`. Unique; the operands' numbers follow from it.
    pub name: String,
    /// The call. What is written also has a [`Fill`]: what it holds before the call.
    pub call: Call<Operand, Operand>,
    /// How far a result in f32 may be off, relative to its largest element and to its L2 norm. 0 asks for equality.
    pub tolerance: f64,
}

/// What a call reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// What it holds.
    pub layout: Layout,
    /// The numbers in it before the call, in the layout's host order.
    pub fill: Fill,
}

/// How an operand is filled. Each rule is a function of the operand's name and place alone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fill {
    /// [`det`](crate::det()): uniform in `centre ± bound`.
    Uniform {
        /// The middle.
        centre: f64,
        /// Half the width.
        bound: f64,
    },
    /// Whole multiples of a half in `-1 ..= 1`: ties everywhere.
    Ties,
    /// Uniform in `±1` with a NaN at about every ninth place.
    SomeNan,
    /// Uniform in `±1`, but channels 0, 2, 4, ... of the activation hold one number each.
    ConstantChannels,
    /// What ReLU6 leaves of uniform numbers in `-3 .. 9`: many exact 0 and 6.
    Clamped,
    /// Whole numbers below 2²⁴: dropout keys.
    Keys,
    /// Rows of zeros with one `weight` in each.
    OneHot {
        /// The length of a row.
        classes: usize,
        /// What the right class weighs.
        weight: f64,
    },
    /// Rows of positive numbers whose sums are not 1.
    Soft {
        /// The length of a row.
        classes: usize,
    },
    /// The mean of each channel of operand `read`, an activation.
    MeanOf {
        /// Which of the operands that are read, in the fields' order.
        read: usize,
    },
    /// `1 / √(var + eps)` of each channel of operand `read`, an activation.
    InvStdOf {
        /// Which of the operands that are read, in the fields' order.
        read: usize,
        /// Added to the variance.
        eps: f64,
    },
    /// What normalisation makes of the operands that are read: an activation, scale, mean, inverse deviation, and shift
    /// in the place before this one.
    Normalised {
        /// Applied last.
        activation: Activation,
    },
    /// These numbers, over and over.
    Repeat(Vec<f32>),
    /// NaN, because the call overwrites it.
    Overwritten,
}

impl Operand {
    /// Uniform in `±1`.
    pub fn new(layout: Layout) -> Self {
        Self::uniform(layout, 0.0, 1.0)
    }

    /// Uniform in `centre ± bound`.
    pub fn uniform(layout: Layout, centre: f64, bound: f64) -> Self {
        Self { layout, fill: Fill::Uniform { centre, bound } }
    }

    /// Filled by a rule.
    pub fn filled(layout: Layout, fill: Fill) -> Self {
        Self { layout, fill }
    }

    /// A result that is overwritten, or one that is added to.
    pub fn result(layout: Layout, accumulate: bool) -> Self {
        if accumulate { Self::new(layout) } else { Self { layout, fill: Fill::Overwritten } }
    }

    /// The operand's numbers; `reads` are those of the operands before it that are read.
    fn numbers(&self, name: &str, reads: &[Vec<f32>], layouts: &[Layout]) -> Vec<f32> {
        let len = self.layout.len();
        let det = |centre, bound| det_f64(name, len, centre, bound);
        let round = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        match &self.fill {
            &Fill::Uniform { centre, bound } => round(det(centre, bound)),
            Fill::Ties => round(det(0.0, 1.0).into_iter().map(|v| (v * 2.0).round() / 2.0).collect()),
            Fill::SomeNan => {
                let nan = det_f64(&format!("{name}/nan"), len, 0.5, 0.5);
                let value = |(v, nan): (f64, f64)| if nan < 0.11 { f64::NAN } else { v };
                round(det(0.0, 1.0).into_iter().zip(nan).map(value).collect())
            }
            Fill::ConstantChannels => {
                let mut values = det(0.0, 1.0);
                for (c, channel) in channels(self.layout).into_iter().enumerate().step_by(2) {
                    channel.into_iter().for_each(|i| values[i] = 0.7 - c as f64);
                }
                round(values)
            }
            Fill::Clamped => round(det(3.0, 6.0).into_iter().map(|v| v.clamp(0.0, 6.0)).collect()),
            Fill::Keys => round(det(8_388_608.0, 8_388_607.0).into_iter().map(f64::floor).collect()),
            &Fill::OneHot { classes, weight } => {
                let place = det_f64(name, len / classes, 0.5, 0.5);
                let hot = |i: usize| (place[i / classes] * classes as f64) as usize == i % classes;
                (0..len).map(|i| if hot(i) { weight as f32 } else { 0.0 }).collect()
            }
            &Fill::Soft { classes } => {
                round(det(0.5, 0.5).into_iter().map(|v| v * v * 4.0 / classes as f64).collect())
            }
            &Fill::MeanOf { read } => {
                round(moments(&reads[read], layouts[read]).into_iter().map(|(mean, _)| mean).collect())
            }
            &Fill::InvStdOf { read, eps } => {
                let inv_std = |(_, var): (f64, f64)| 1.0 / (var + eps).sqrt();
                round(moments(&reads[read], layouts[read]).into_iter().map(inv_std).collect())
            }
            &Fill::Normalised { activation } => {
                let bias = reads.last().expect("the shift is read before");
                let mut out = vec![0.0; len];
                for (c, places) in channels(self.layout).into_iter().enumerate() {
                    let [scale, mean, inv_std, bias] =
                        [&reads[1], &reads[2], &reads[3], bias].map(|v| f64::from(v[c]));
                    let value = |i: usize| (f64::from(reads[0][i]) - mean) * inv_std * scale + bias;
                    places.into_iter().for_each(|i| out[i] = activation.apply(value(i) as f32));
                }
                out
            }
            Fill::Repeat(values) => values.iter().copied().cycle().take(len).collect(),
            Fill::Overwritten => vec![f32::NAN; len],
        }
    }
}

impl Case {
    /// The layouts of the operands: what [`Kernels::supports`](defrost_tensor::Kernels::supports) is asked.
    pub fn layouts(&self) -> Call<Layout, Layout> {
        self.call.clone().map(&mut |o| o.layout, &mut |o| o.layout)
    }

    /// The numbers in the operands before the call: those that are read and those that are written.
    pub fn numbers(&self) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let (layouts, mut reads) = (self.layouts().reads(), Vec::new());
        for (i, operand) in self.call.reads().iter().enumerate() {
            reads.push(operand.numbers(&format!("{}/read {i}", self.name), &reads, &layouts));
        }
        let write = |(i, operand): (usize, &Operand)| {
            operand.numbers(&format!("{}/write {i}", self.name), &reads, &layouts)
        };
        let writes = self.call.writes().iter().enumerate().map(write).collect();
        (reads, writes)
    }
}

/// The places of each channel of an activation.
fn channels(layout: Layout) -> Vec<Vec<usize>> {
    let Layout::Activation(shape) = layout else { return Vec::new() };
    let mut channels = vec![Vec::new(); shape.c];
    (0..shape.len()).for_each(|i| channels[i / shape.area() % shape.c].push(i));
    channels
}

/// Mean and biased variance of each channel of an activation.
fn moments(values: &[f32], layout: Layout) -> Vec<(f64, f64)> {
    let moments = |places: Vec<usize>| {
        let m = places.len() as f64;
        let mean = places.iter().map(|&i| f64::from(values[i])).sum::<f64>() / m;
        (mean, places.iter().map(|&i| (f64::from(values[i]) - mean).powi(2)).sum::<f64>() / m)
    };
    channels(layout).into_iter().map(moments).collect()
}
