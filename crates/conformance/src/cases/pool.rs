//! Max and average pools with their gradients: windows that overlap, hang over, are partial; adaptive windows.

use defrost_tensor::call::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use defrost_tensor::{Layout, PoolDesc, Shape4};

use super::{ROUNDING, case, dims, flags};
use crate::{Case, Fill, Operand};

/// The pools that are tried, each with an input's shape.
pub(crate) fn problems() -> Vec<(PoolDesc, Shape4)> {
    let at = Shape4::new;
    let square = PoolDesc::square;
    let window = |kernel, stride, padding, ceil| PoolDesc::Window { kernel, stride, padding, ceil };
    let adaptive = |h, w| PoolDesc::Adaptive { out: [h, w] };
    vec![
        (square(3, 2, 1), at(2, 19, 8, 7)),
        (square(3, 2, 1), at(1, 64, 16, 16)),
        (square(3, 2, 1), at(1, 3, 1, 1)),
        (square(3, 2, 0), at(2, 8, 9, 7)),
        (square(2, 2, 0), at(5, 33, 6, 8)),
        (square(2, 2, 0), at(1, 16, 7, 5)),
        (square(3, 1, 1), at(2, 3, 5, 6)),
        (square(2, 1, 0), at(1, 8, 4, 4)),
        (square(1, 1, 0), at(1, 5, 3, 2)),
        (square(1, 2, 0), at(1, 5, 4, 5)),
        (square(5, 1, 2), at(1, 9, 6, 7)),
        (square(7, 1, 0), at(2, 24, 7, 7)),
        (square(2, 3, 0), at(1, 4, 8, 9)),
        (square(3, 2, 1), at(1, 257, 4, 4)),
        (square(2, 2, 0), at(1, 4, 34, 66)),
        (window([3, 3], [2, 2], [0, 0], true), at(2, 19, 8, 7)),
        (window([3, 3], [2, 2], [0, 0], true), at(1, 8, 4, 6)),
        (window([3, 3], [2, 2], [1, 1], true), at(1, 8, 6, 7)),
        (window([2, 2], [2, 2], [0, 0], true), at(2, 16, 5, 7)),
        (window([2, 2], [2, 2], [1, 1], true), at(1, 3, 4, 5)),
        (window([3, 2], [1, 2], [1, 0], false), at(2, 5, 6, 7)),
        (window([1, 4], [1, 4], [0, 0], false), at(2, 5, 3, 8)),
        (PoolDesc::GLOBAL, at(2, 33, 7, 5)),
        (PoolDesc::GLOBAL, at(5, 1030, 1, 1)),
        (PoolDesc::GLOBAL, at(1, 8, 37, 29)),
        (adaptive(7, 7), at(2, 19, 1, 1)),
        (adaptive(7, 7), at(1, 16, 7, 7)),
        (adaptive(7, 7), at(2, 8, 10, 10)),
        (adaptive(7, 7), at(1, 8, 2, 14)),
        (adaptive(3, 2), at(1, 33, 8, 5)),
    ]
}

pub(crate) fn label(desc: &PoolDesc, input: Shape4) -> String {
    let what = match *desc {
        PoolDesc::Window { kernel: [kh, kw], stride: [sh, sw], padding: [ph, pw], ceil } => {
            format!("{kh}x{kw}/({sh},{sw}) p({ph},{pw}){}", flags(&[(ceil, "ceil")]))
        }
        PoolDesc::Adaptive { out: [1, 1] } => "global".into(),
        PoolDesc::Adaptive { out: [h, w] } => format!("adaptive {h}x{w}"),
        _ => format!("{desc:?}"),
    };
    format!("{what} on {}", dims(input))
}

pub(super) fn push(cases: &mut Vec<Case>) {
    for (i, (desc, input)) in problems().into_iter().enumerate() {
        let layout = Layout::Activation(input);
        let output = Layout::Activation(desc.output(input).expect("the list's shapes fit"));
        // All below 0, so that padding that counts as 0 shows; ties; NaN.
        let special = [
            (Operand::uniform(layout, -2.0, 1.0), "negative"),
            (Operand::filled(layout, Fill::Ties), "ties"),
            (Operand::filled(layout, Fill::SomeNan), "nan"),
        ];
        for (x, what) in [(Operand::new(layout), ""), special[0].clone(), special[1 + i % 2].clone()] {
            let name = label(&desc, input) + &flags(&[(!what.is_empty(), what)]);
            let out = Operand::result(output, false);
            cases.push(case(name, MaxPool { desc, input, x, out }, 0.0));
        }
        let out = Operand::result(output, false);
        let avg = AvgPool { desc, input, x: Operand::new(layout), out };
        cases.push(case(label(&desc, input), avg, ROUNDING));
        for accumulate in [false, true] {
            let name = label(&desc, input) + &flags(&[(accumulate, "accumulate")]);
            let grad_out = Operand::new(output);
            let grad_in = Operand::result(layout, accumulate);
            let avg =
                AvgPoolGrad { desc, input, accumulate, grad_out: grad_out.clone(), grad_in: grad_in.clone() };
            cases.push(case(&name, avg, ROUNDING));
            for (x, what) in [(Operand::new(layout), ""), special[1].clone()] {
                let name = name.clone() + &flags(&[(!what.is_empty(), what)]);
                let (grad_out, grad_in) = (grad_out.clone(), grad_in.clone());
                cases.push(case(
                    name,
                    MaxPoolGrad { desc, input, accumulate, x, grad_out, grad_in },
                    ROUNDING,
                ));
            }
        }
    }
}
