//! `--check`: own kernels beside the `gemm` crate at the same shapes. A regression shows as a ratio, on any machine.

use anyhow::bail;
use clap::Parser;

use crate::kernels::Kernels;
use crate::machine::Machine;
use crate::{Cli, Common, What};

/// How many times as fast as one matrix product of its size a convolution is at least, by what it is. The product is
/// given its columns for nothing, so 1 is much. The floors are loose: they catch a path that is lost, not a tenth. What is below by a neighbour's doing is measured once more.
fn floor(layer: &str, pass: &str) -> f64 {
    let stride1 = layer.contains("3x3 @");
    match pass {
        _ if layer.contains(" dw") => 0.0,
        // Winograd needs 2.25 to 4 times fewer products.
        "forward" | "grad input" if stride1 => 1.0,
        _ if stride1 => 0.8,
        _ => 0.3,
    }
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
        let floor = floor(row["layer"].as_str()?, row["pass"].as_str()?);
        (ratio < floor).then(|| (row["id"].as_str().unwrap_or_default().to_owned(), ratio, floor))
    });
    Ok(below.collect())
}
