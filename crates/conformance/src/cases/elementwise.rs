//! Calls that treat each element alone, dropout, and those that put elements in other places.

use defrost_tensor::call::{Activate, ActivateGrad, Add, Copy, CopyChannels, Dropout, Flatten, Unflatten};
use defrost_tensor::{Layout, Shape4};

use super::{ACTIVATIONS, ROUNDING, case, dims, flags, named, plain};
use crate::{Case, Fill, Operand};

/// Lengths around vector widths, blocks and a thread's share.
fn layouts() -> [(Layout, String); 7] {
    let activation = Shape4::new(2, 19, 3, 5);
    let large = Shape4::new(3, 33, 20, 21);
    [
        (plain(1), "1".into()),
        (plain(7), "7".into()),
        (plain(16), "16".into()),
        (plain(1003), "1003".into()),
        (plain(65_537), "65537".into()),
        (Layout::Activation(activation), dims(activation)),
        (Layout::Activation(large), dims(large)),
    ]
}

pub(super) fn push(cases: &mut Vec<Case>) {
    for (layout, size) in layouts() {
        for activation in ACTIVATIONS {
            pointwise(cases, layout, &format!("{size} {}", named(activation)), activation);
        }
        for accumulate in [false, true] {
            let x = Operand::filled(layout, if accumulate { Fill::Ties } else { Fill::SomeNan });
            let out = Operand::result(layout, accumulate);
            let name = format!("{size}{}", flags(&[(accumulate, "accumulate")]));
            let tolerance = if accumulate { ROUNDING } else { 0.0 };
            cases.push(case(name, Copy { len: layout.len(), accumulate, x, out }, tolerance));
        }
    }
    flatten(cases);
    dropout(cases);
    copy_channels(cases);
}

fn pointwise(cases: &mut Vec<Case>, layout: Layout, name: &str, activation: defrost_tensor::Activation) {
    let len = layout.len();
    let wide = || Operand::uniform(layout, 2.0, 8.0);
    let out = || Operand::result(layout, false);
    cases.push(case(name, Activate { activation, len, x: wide(), out: out() }, 0.0));
    if len > 1 {
        let x = Operand::filled(layout, Fill::SomeNan);
        cases.push(case(format!("{name} nan"), Activate { activation, len, x, out: out() }, 0.0));
    }
    cases.push(case(name, Add { activation, len, a: wide(), b: Operand::new(layout), out: out() }, ROUNDING));
    for accumulate in [false, true] {
        let call = ActivateGrad {
            activation,
            len,
            accumulate,
            out: Operand::filled(layout, Fill::Clamped),
            grad_out: Operand::new(layout),
            grad_in: Operand::result(layout, accumulate),
        };
        cases.push(case(format!("{name}{}", flags(&[(accumulate, "accumulate")])), call, ROUNDING));
    }
}

fn flatten(cases: &mut Vec<Case>) {
    for input in [
        Shape4::new(1, 1, 1, 1),
        Shape4::new(2, 3, 4, 5),
        Shape4::new(1, 19, 7, 7),
        Shape4::new(5, 33, 1, 1),
        Shape4::new(2, 257, 3, 2),
        Shape4::new(1, 16, 1, 67),
    ] {
        let image = Layout::Activation(input);
        let vector = Layout::Activation(Shape4::vector(input.n, input.image_len()));
        let (x, out) = (Operand::new(image), Operand::result(vector, false));
        cases.push(case(dims(input), Flatten { input, x, out }, 0.0));
        for accumulate in [false, true] {
            let (x, out) = (Operand::new(vector), Operand::result(image, accumulate));
            let name = dims(input) + &flags(&[(accumulate, "accumulate")]);
            let tolerance = if accumulate { ROUNDING } else { 0.0 };
            cases.push(case(name, Unflatten { input, accumulate, x, out }, tolerance));
        }
    }
}

fn dropout(cases: &mut Vec<Case>) {
    let rates = [0.5, 0.2, 0.0, 0.9];
    for (i, shape) in
        [Shape4::vector(1, 1), Shape4::vector(5, 33), Shape4::vector(2, 1280), Shape4::vector(3, 4096)]
            .into_iter()
            .enumerate()
    {
        for (layer, accumulate) in [(0, false), (3, true), (u32::MAX, false)] {
            let rate = rates[(i + layer as usize % 2) % 4];
            let layout = Layout::Activation(shape);
            let call = Dropout {
                shape,
                rate,
                layer,
                accumulate,
                x: Operand::uniform(layout, 2.0, 1.0),
                keys: Operand::filled(plain(2 * shape.n), Fill::Keys),
                out: Operand::result(layout, accumulate),
            };
            let name =
                format!("{} rate {rate} layer {layer}{}", dims(shape), flags(&[(accumulate, "accumulate")]));
            cases.push(case(name, call, ROUNDING));
        }
    }
}

fn copy_channels(cases: &mut Vec<Case>) {
    // Channels of the source and of the target; the first of each that is copied, and how many.
    let problems = [
        (Shape4::new(2, 19, 3, 5), 33, 0, 0, 19),
        (Shape4::new(2, 19, 3, 5), 33, 0, 14, 19),
        (Shape4::new(3, 64, 7, 7), 16, 48, 0, 16),
        (Shape4::new(1, 257, 2, 2), 40, 3, 5, 31),
        (Shape4::vector(5, 1280), 2560, 0, 1280, 1280),
        (Shape4::vector(4, 1030), 515, 515, 0, 515),
        (Shape4::new(1, 1, 1, 1), 1, 0, 0, 1),
        (Shape4::new(1, 8, 37, 29), 24, 0, 8, 8),
    ];
    for (input, c, from, to, channels) in problems {
        let output = Shape4 { c, ..input };
        for accumulate in [false, true] {
            let x = Operand::new(Layout::Activation(input));
            let out = Operand::new(Layout::Activation(output));
            let call = CopyChannels { input, output, from, to, channels, accumulate, x, out };
            let name = format!("{} of {channels} from {from} to {to} of {c}", dims(input));
            let tolerance = if accumulate { ROUNDING } else { 0.0 };
            cases.push(case(name + &flags(&[(accumulate, "accumulate")]), call, tolerance));
        }
    }
}
