//! All three passes against plain loops in double precision, over odd shapes.

use defrost_tensor::Padding;

use super::*;
use crate::Isa;
use crate::testing::{assert_close, filled, random};

fn shapes() -> Vec<ConvShape> {
    let conv = |desc: ConvDesc, n: usize, h: usize, w: usize| {
        ConvShape::new(desc, Shape4::new(n, desc.in_channels, h, w)).unwrap()
    };
    let uneven = ConvDesc {
        kernel: [3, 2],
        stride: [2, 1],
        padding: Padding::Symmetric([1, 0]),
        dilation: [1, 2],
        ..ConvDesc::new(5, 7, 3, 1, 1)
    };
    vec![
        // Dense: odd channels, strides, windows larger than the input's half, dilation, uneven "same" padding.
        conv(ConvDesc::new(3, 10, 3, 1, 1), 2, 7, 5),
        conv(ConvDesc::new(3, 20, 7, 2, 3), 2, 17, 15),
        conv(ConvDesc::new(5, 9, 3, 2, 1), 3, 8, 9),
        conv(ConvDesc::new(4, 6, 3, 2, 0).with_padding(Padding::Same), 2, 8, 7),
        conv(ConvDesc::new(4, 6, 3, 1, 2).with_dilation(2), 2, 7, 9),
        conv(ConvDesc::new(4, 6, 3, 3, 0), 2, 9, 10),
        conv(uneven, 2, 9, 8),
        conv(ConvDesc::new(70, 130, 3, 1, 1), 1, 5, 6),
        conv(ConvDesc::new(600, 20, 3, 1, 1), 1, 3, 4),
        // Weights large enough to be summed in tiles, not shards.
        conv(ConvDesc::new(90, 96, 3, 2, 1), 2, 9, 9),
        // Pointwise, strided 1×1, padded 1×1.
        conv(ConvDesc::new(16, 24, 1, 1, 0), 2, 13, 11),
        conv(ConvDesc::new(32, 48, 1, 1, 0), 2, 5, 4),
        conv(ConvDesc::new(24, 330, 1, 1, 0), 3, 11, 10),
        conv(ConvDesc::new(330, 300, 1, 1, 0), 2, 4, 4),
        conv(ConvDesc::new(6, 50, 1, 2, 0), 2, 7, 8),
        conv(ConvDesc::new(6, 5, 1, 1, 1), 2, 4, 3),
        // Winograd's: whole and mixed tiles, edges that hang over, all paddings, channels that fill no vector.
        conv(ConvDesc::new(17, 40, 3, 1, 1), 2, 8, 9),
        conv(ConvDesc::new(40, 80, 3, 1, 1), 3, 14, 14),
        conv(ConvDesc::new(150, 70, 3, 1, 1), 4, 7, 7),
        conv(ConvDesc::new(33, 19, 3, 1, 0), 2, 13, 11),
        conv(ConvDesc::new(19, 33, 3, 1, 2), 2, 6, 10),
        conv(ConvDesc::new(130, 130, 3, 1, 1), 2, 10, 5),
        // Shapes that pass for Winograd's, by plain sums.
        conv(ConvDesc::new(40, 80, 3, 1, 1), 3, 14, 14).with_algorithm(Algorithm::Direct),
        // Rows of more pixels than are worked off together.
        conv(ConvDesc::new(3, 10, 3, 1, 1), 1, 2, 140),
        conv(ConvDesc::new(258, 6, 3, 1, 1), 1, 2, 133).with_algorithm(Algorithm::Direct),
        // Grouped.
        conv(ConvDesc::new(6, 9, 3, 1, 1).with_groups(3), 2, 5, 6),
        conv(ConvDesc::new(8, 4, 3, 2, 1).with_groups(2), 2, 7, 6),
        conv(ConvDesc::new(4, 8, 3, 1, 1).with_groups(4), 2, 5, 5),
        // Whole cache lines: results are streamed.
        conv(ConvDesc::new(16, 32, 3, 2, 1), 2, 9, 8),
        conv(ConvDesc::new(32, 32, 3, 1, 1).with_groups(32), 2, 5, 7),
        // Depthwise: both fast steps, wide rows, borders, other windows.
        conv(ConvDesc::new(19, 19, 3, 1, 1).with_groups(19), 2, 6, 17),
        conv(ConvDesc::new(33, 33, 3, 2, 1).with_groups(33), 2, 9, 22),
        conv(ConvDesc::new(8, 8, 3, 2, 0).with_padding(Padding::Same).with_groups(8), 2, 8, 8),
        conv(ConvDesc::new(5, 5, 5, 1, 2).with_groups(5), 1, 7, 6),
        conv(ConvDesc::new(5, 5, 7, 2, 3).with_groups(5), 1, 9, 8),
        conv(ConvDesc::new(5, 5, 3, 1, 2).with_dilation(2).with_groups(5), 2, 7, 9),
        conv(ConvDesc::new(4, 4, 3, 3, 1).with_groups(4), 2, 8, 7),
        conv(ConvDesc::new(16, 16, 3, 1, 1).with_groups(16), 1, 1, 1),
        conv(ConvDesc::new(16, 16, 3, 1, 1).with_groups(16), 1, 2, 12),
    ]
}

/// Calls `visit(input, weight, output)` with the places of each product.
fn products(shape: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let ConvShape { desc, input, output, pads, .. } = *shape;
    let (ci, co) = (desc.in_channels / desc.groups, desc.out_channels / desc.groups);
    for n in 0..output.n {
        for (oy, ox) in (0..output.h).flat_map(|y| (0..output.w).map(move |x| (y, x))) {
            for (ky, kx) in (0..desc.kernel[0]).flat_map(|y| (0..desc.kernel[1]).map(move |x| (y, x))) {
                let iy = (oy * desc.stride[0] + ky * desc.dilation[0]).wrapping_sub(pads.top);
                let ix = (ox * desc.stride[1] + kx * desc.dilation[1]).wrapping_sub(pads.left);
                if iy >= input.h || ix >= input.w {
                    continue;
                }
                for o in 0..output.c {
                    for i in 0..ci {
                        visit(
                            ((n * input.h + iy) * input.w + ix) * input.c + o / co * ci + i,
                            ((ky * desc.kernel[1] + kx) * ci + i) * output.c + o,
                            ((n * output.h + oy) * output.w + ox) * output.c + o,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn all_passes_equal_plain_loops_on_any_threads_and_instruction_set() {
    for shape in shapes() {
        let x = random(shape.input.len(), 1);
        let weight = random(shape.weight_len(), 2);
        let g = random(shape.output.len(), 3);
        let (bias, residual) = (random(shape.output.c, 4), random(shape.output.len(), 5));
        let mut out = vec![0.0f64; g.len()];
        let (mut grad_in, mut grad_w) = (vec![0.0f64; x.len()], vec![0.0f64; weight.len()]);
        products(&shape, |i, w, o| {
            out[o] += f64::from(x[i]) * f64::from(weight[w]);
            grad_in[i] += f64::from(g[o]) * f64::from(weight[w]);
            grad_w[w] += f64::from(g[o]) * f64::from(x[i]);
        });
        let relu6: Vec<f64> = out
            .iter()
            .enumerate()
            .map(|(i, o)| (o + f64::from(bias[i % shape.output.c]) + f64::from(residual[i])).clamp(0.0, 6.0))
            .collect();
        for isa in Isa::available() {
            let run = |count: usize| {
                let threads = Threads::new(count).with_isa(isa);
                // What is left in a workspace must not matter.
                let ws = |len: usize| vec![f32::NAN; len];
                let (none, all) = (
                    Epilogue::default(),
                    Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::Relu6 },
                );
                let (mut plain, mut full) = (filled(g.len(), 7.0), filled(g.len(), 7.0));
                let mut fw = ws(forward_workspace(&threads, &shape));
                forward(&threads, &shape, &x, &weight, &none, &mut plain, &mut fw);
                forward(&threads, &shape, &x, &weight, &all, &mut full, &mut fw);
                let (mut gi, mut gi_added) = (filled(x.len(), 7.0), filled(x.len(), 1.0));
                let mut iw = ws(grad_input_workspace(&threads, &shape));
                super::grad_input(&threads, &shape, &g, &weight, false, &mut gi, &mut iw);
                super::grad_input(&threads, &shape, &g, &weight, true, &mut gi_added, &mut iw);
                let (mut gw, mut gw_added) = (vec![7.0; weight.len()], vec![1.0; weight.len()]);
                let mut ww = ws(grad_weight_workspace(&threads, &shape));
                super::grad_weight(&threads, &shape, &x, &g, false, &mut gw, &mut ww);
                super::grad_weight(&threads, &shape, &x, &g, true, &mut gw_added, &mut ww);
                [plain.to_vec(), full.to_vec(), gi.to_vec(), gi_added.to_vec(), gw, gw_added]
            };
            let one = run(1);
            let plus_one = |v: &[f64]| v.iter().map(|v| v + 1.0).collect::<Vec<_>>();
            let want = [&out, &relu6, &grad_in, &plus_one(&grad_in), &grad_w, &plus_one(&grad_w)];
            let names =
                ["forward", "epilogue", "grad_input", "grad_input +=", "grad_weight", "grad_weight +="];
            for ((got, want), name) in one.iter().zip(want).zip(names) {
                // Sums of thousands of terms that a clamp makes small: the error is relative to the sums.
                // Winograd's way rounds more, see `winograd`.
                let exact = Plane::forward(&shape).is_none() && Plane::grad_input(&shape).is_none();
                let tolerance = if exact { 2e-6 } else { 4e-6 };
                assert_close(
                    got,
                    want,
                    if name == "epilogue" { 10.0 * tolerance } else { tolerance },
                    &format!("{name} {isa:?} {shape:?}"),
                );
            }
            for count in [2, 3] {
                assert_eq!(run(count), one, "{count} threads {isa:?} {shape:?}");
            }
        }
    }
}

#[test]
fn products_of_bfloat16_are_off_by_their_rounding_alone_on_any_threads() {
    let threads = Threads::new(2);
    for shape in shapes().into_iter().map(|shape| shape.with_half(true)) {
        // Numbers that bfloat16 holds: then the same shape without it is as exact.
        let short = |v: Vec<f32>| {
            v.into_iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect::<Vec<_>>()
        };
        let x = short(random(shape.input.len(), 1));
        let weight = short(random(shape.weight_len(), 2));
        let g = short(random(shape.output.len(), 3));
        let (bias, residual) = (random(shape.output.c, 4), random(shape.output.len(), 5));
        let epilogue =
            Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::Relu };
        let run = |shape: &ConvShape, threads: &Threads, x: &[f32], g: &[f32]| {
            let ws = |len: usize| vec![f32::NAN; len];
            let (mut out, mut gi) = (filled(g.len(), 7.0), filled(x.len(), 1.0));
            forward(
                threads,
                shape,
                x,
                &weight,
                &epilogue,
                &mut out,
                &mut ws(forward_workspace(threads, shape)),
            );
            let mut workspace = ws(grad_input_workspace(threads, shape));
            super::grad_input(threads, shape, g, &weight, true, &mut gi, &mut workspace);
            let mut gw = vec![1.0; weight.len()];
            let mut workspace = ws(grad_weight_workspace(threads, shape));
            super::grad_weight(threads, shape, x, g, true, &mut gw, &mut workspace);
            [out.to_vec(), gi.to_vec(), gw]
        };
        let got = run(&shape, &threads, &x, &g);
        let want = run(&shape.with_half(false), &threads, &x, &g);
        for (got, want) in got.iter().zip(&want) {
            let want: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
            assert_close(got, &want, 1e-5, &format!("{shape:?}"));
        }
        assert_eq!(got, run(&shape, &Threads::serial(), &x, &g), "{shape:?}");
        // Other numbers are rounded by 2⁻⁹ each.
        let (x, g) = (random(x.len(), 6), random(g.len(), 7));
        let (got, want) = (run(&shape, &threads, &x, &g), run(&shape.with_half(false), &threads, &x, &g));
        for (got, want) in got.iter().zip(&want) {
            let want: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
            assert_close(got, &want, 5e-3, &format!("{shape:?}"));
        }
    }
}
