//! The deterministic numbers of `tests/golden/make_golden.py`, which says how they are made.

use defrost::graph::{Graph, ParamKind, ParamStore};
use defrost::tensor::HostTensor;

/// `centre + bound · (2u - 1)` with `u` in [0, 1) from the name and the place.
pub(crate) fn det(name: &str, shape: &[usize], centre: f64, bound: f64) -> HostTensor {
    let key =
        name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let len: usize = shape.iter().product();
    let value = |i: usize| {
        let mut z = key.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let u = (z >> 40) as f64 / f64::from(1 << 24);
        (centre + bound * (2.0 * u - 1.0)) as f32
    };
    HostTensor::new(shape, (0..len).map(value).collect()).unwrap()
}

/// The weights that `make_golden.py` gives a model.
pub(crate) fn weights(graph: &Graph, seed: &str) -> ParamStore {
    let bottleneck = graph.params().iter().any(|p| p.name.contains("bn3"));
    let last_bn = if bottleneck { "bn3.weight" } else { "bn2.weight" };
    let mut store = ParamStore::zeros(graph);
    for p in graph.params() {
        let (centre, bound) = match p.kind {
            ParamKind::NormWeight if p.name.starts_with("layer") && p.name.ends_with(last_bn) => {
                (0.25, 0.025)
            }
            ParamKind::NormWeight | ParamKind::RunningVar => (1.0, 0.1),
            ParamKind::NormBias | ParamKind::RunningMean => (0.0, 0.1),
            ParamKind::Bias => (0.0, 0.05),
            _ => (0.0, (6.0 / p.shape[1..].iter().product::<usize>() as f64).sqrt()),
        };
        store.set(&p.name, det(&format!("{seed}/{}", p.name), &p.shape, centre, bound)).unwrap();
    }
    store
}
