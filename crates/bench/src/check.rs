//! `--check`: own kernels beside the `gemm` crate at the same shapes. A regression shows as a ratio, on any machine.

use anyhow::bail;
use clap::Parser;

use crate::kernels::{Kernels, PASSES};
use crate::machine::Machine;
use crate::{Cli, Common, What};

/// A sort of convolution, and how many times as fast as one matrix product of its size its three passes ([`PASSES`]) are at
/// least: 85 % of the least of two runs on a quiet machine with AVX-512 (docs/performance.md). The product is given its columns
/// for nothing, so 1 is much; Winograd's way needs 2.25 to 4 times fewer products.
const FLOORS: [(Sort, [f64; 3]); 7] = [
    (Sort::Picture, [0.48, 0.0, 1.03]),
    (Sort::Winograd { small: true }, [1.10, 1.22, 1.57]),
    (Sort::Winograd { small: false }, [1.56, 1.41, 1.88]),
    (Sort::Pointwise { large: true }, [0.54, 0.70, 1.05]),
    (Sort::Pointwise { large: false }, [0.80, 0.82, 0.78]),
    (Sort::StridedPointwise, [0.82, 0.46, 0.69]),
    (Sort::Strided, [0.83, 0.81, 0.72]),
];

/// Part of a floor that is asked where the instructions are others than those it was measured with.
const ELSEWHERE: f64 = 0.6;

/// Convolutions that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    /// The first one, on pictures.
    Picture,
    /// 3×3 at stride 1; on images of 7×7 tiles are not full.
    Winograd { small: bool },
    /// 1×1 at stride 1; of large images the values of a matrix row are few and memory counts.
    Pointwise { large: bool },
    /// 1×1 at stride 2.
    StridedPointwise,
    /// All else.
    Strided,
}

impl Sort {
    /// That of a layer by its name, as in `64->128 3x3/2 @56`; `None` for a depthwise one, which is no product.
    fn of(layer: &str) -> Option<Self> {
        let (channels, rest) = layer.split_once(' ')?;
        let (kernel, side) = rest.split_once(" @")?;
        let side: usize = side.split(' ').next()?.parse().ok()?;
        if layer.contains(" dw") {
            return None;
        }
        Some(match kernel {
            _ if channels.starts_with("3->") => Self::Picture,
            "3x3" => Self::Winograd { small: side <= 7 },
            "1x1" => Self::Pointwise { large: side >= 56 },
            "1x1/2" => Self::StridedPointwise,
            _ => Self::Strided,
        })
    }
}

/// The least ratio that is asked of a layer's pass.
fn floor(layer: &str, pass: &str, isa: &str) -> Option<f64> {
    let (sort, at) = (Sort::of(layer)?, PASSES.iter().position(|p| *p == pass)?);
    let (_, floors) = FLOORS.iter().find(|(other, _)| *other == sort)?;
    Some(floors[at] * if isa == "AVX-512" { 1.0 } else { ELSEWHERE })
}

pub(crate) fn run(common: &Common, machine: &Machine) -> anyhow::Result<()> {
    let Some(What::Kernels(kernels)) = Cli::try_parse_from(["bench", "kernels", "--rounds", "9"])?.what
    else {
        bail!("the command `kernels` is gone");
    };
    let mut slow = slow(&kernels, common, machine)?;
    if !slow.is_empty() {
        println!("\nonce more, for what may have been a neighbour's doing");
        let again = self::slow(&kernels, common, machine)?;
        slow.retain(|(id, ..)| again.iter().any(|(other, ..)| other == id));
    }
    if slow.is_empty() {
        println!("\nall kernels are as fast beside `gemm` as they should be");
        return Ok(());
    }
    let line =
        |(id, ratio, floor): &(String, f64, f64)| format!("\n  {id}: {ratio:.2} times, at least {floor:.2}");
    bail!("slower beside `gemm` than they should be:{}", slow.iter().map(line).collect::<String>())
}

/// Kernels below their floor: which, their ratio, the floor.
fn slow(kernels: &Kernels, common: &Common, machine: &Machine) -> anyhow::Result<Vec<(String, f64, f64)>> {
    let rows = kernels.run(common, machine)?;
    let below = rows.iter().filter_map(|row| {
        let ratio = row["gemm_over_own"].as_f64()?;
        let floor = floor(row["layer"].as_str()?, row["pass"].as_str()?, machine.isa)?;
        (ratio < floor).then(|| (row["id"].as_str().unwrap_or_default().to_owned(), ratio, floor))
    });
    Ok(below.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{convolutions, nets};

    #[test]
    fn every_convolution_that_is_a_product_has_its_floor() {
        let common = Cli::try_parse_from(["bench", "machine"]).unwrap().common;
        let mut sorts = Vec::new();
        for net in nets(&common) {
            for layer in convolutions(&net, 1, 224).unwrap() {
                let name = layer.name();
                match Sort::of(&name) {
                    None => assert!(name.contains(" dw"), "{name}"),
                    Some(sort) => {
                        assert!(PASSES.iter().all(|pass| floor(&name, pass, "AVX-512").is_some()), "{name}");
                        sorts.push(sort);
                    }
                }
            }
        }
        assert!(FLOORS.iter().all(|(sort, _)| sorts.contains(sort)), "{sorts:?}");
        assert_eq!(floor("64->64 3x3 @56", "grad input", "AVX-512"), Some(1.41));
        assert!(floor("64->64 3x3 @56", "grad input", "AVX2").unwrap() < 1.0);
    }
}
