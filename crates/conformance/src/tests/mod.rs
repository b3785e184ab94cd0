//! The suite passes where it should and fails where it should; the oracle's gradients are gradients.

mod broken;
mod faults;
mod gradients;
mod plans;

use std::collections::HashSet;

use defrost_tensor::Call;

use crate::{Oracle, cases, det, run_all};

#[test]
fn det_is_the_formula_of_the_golden_files() {
    // What the Python of the formula prints.
    let input = det("golden/input", [2, 3], 0.0, 2.0);
    assert_eq!(input.shape(), [2, 3]);
    assert_eq!(
        input.data(),
        [-1.775_121_5, -0.622_543_8, 0.040_203_094, -1.288_036_1, 1.253_418_2, 1.259_097_6]
    );
    assert_eq!(
        det("golden/layer1.0.bn1.weight", [4], 1.0, 0.1).data(),
        [1.003_868, 0.941_400_7, 0.923_015_3, 1.049_461_7]
    );
    assert_eq!(det("é/0", [2], 0.25, 0.025).data(), [0.258_057_5, 0.235_236_63]);
    let stem = det("golden/conv1.weight", [64, 3, 7, 7], 0.0, (6.0_f64 / 147.0).sqrt());
    assert_eq!(stem.data().last(), Some(&-0.034_428_05));
}

#[test]
fn the_oracle_passes_its_own_suite() {
    let report = run_all(&Oracle, 1.0, &[]);
    assert!(report.passed(), "{report}");
}

#[test]
fn the_suite_has_every_call_and_no_name_twice() {
    let cases = cases();
    let kernels: HashSet<_> = cases.iter().map(|c| Call::name(&c.call)).collect();
    assert_eq!(kernels.len(), 31, "{kernels:?}");
    let mut names = HashSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "{} twice", case.name);
    }
}
