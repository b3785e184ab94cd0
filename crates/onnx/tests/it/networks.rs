//! Networks with values that leave nothing at its start, and what the CPU backend makes of a batch.

use std::sync::Arc;

use defrost_exec::{Engine, Images};
use defrost_graph::{Graph, ParamKind, ParamStore};
use defrost_ndarray::CpuEngine;
use defrost_tensor::{HostTensor, PixelScale};
use defrost_zoo::{Arch, Head, ModelSpec};

/// Numbers in -1…1 that are the same everywhere (a linear congruence of Knuth's).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// Every network in every geometry, and every head, for images of `size`; VGG16 with its wide layers where `wide`.
pub(crate) fn all(size: usize, wide: bool) -> Vec<ModelSpec> {
    let mut specs = Vec::new();
    for arch in Arch::ALL {
        for geometry in arch.geometries() {
            let mut spec = ModelSpec::new(arch, 5).with_geometry(geometry).with_image_size(size);
            spec.image_size[1] += if wide { 0 } else { 5 };
            if arch == Arch::Vgg16 && !wide {
                spec.head = "pooled:32".parse().unwrap();
            }
            specs.push(spec);
        }
    }
    let heads = ["linear:0.5", "pooled", "pooled:16,8:0.5", "pooled_bn:16", "flattened:16"];
    let heads = heads.map(|text| text.parse::<Head>().unwrap());
    let slim =
        |head| ModelSpec::new(Arch::MobilenetV2, 3).with_width(0.25).with_image_size(32).with_head(head);
    specs.extend(heads.map(slim));
    specs.push(ModelSpec::new(Arch::Resnet18, 2).with_in_channels(1).with_image_size(40));
    specs
}

/// As in `vgg16-keras-64x69`.
pub(crate) fn name(spec: &ModelSpec) -> String {
    let [h, w] = spec.image_size;
    format!("{}-{}-{}-{h}x{w}", spec.arch, spec.geometry, spec.head).replace([':', ',', ' '], "_")
}

/// Values for `graph` as training leaves them: no scale 1, no shift 0, no variance 1.
pub(crate) fn trained(graph: &Graph) -> ParamStore {
    let mut params = ParamStore::zeros(graph);
    let mut noise = Noise(graph.params().len() as u64);
    // Layers that keep the features' variance through a ReLU, so that the outputs tell images apart.
    for param in graph.params().iter().filter(|p| p.shape.len() > 1) {
        let fan_in: usize = param.shape[1..].iter().product();
        let bound = (6.0 / fan_in as f32).sqrt();
        let values = noise.take(param.shape.iter().product()).into_iter().map(|v| bound * v).collect();
        params.set(&param.name, HostTensor::new(param.shape.clone(), values).unwrap()).unwrap();
    }
    for param in graph.params().iter().filter(|p| p.shape.len() == 1) {
        let len = param.shape[0];
        let values = noise.take(len);
        let values = match param.kind {
            ParamKind::RunningVar => values.iter().map(|v| 1.0 + 0.5 * v).collect(),
            ParamKind::NormWeight => values.iter().map(|v| 0.8 + 0.2 * v).collect(),
            _ => values.iter().map(|v| 0.2 * v).collect(),
        };
        params.set(&param.name, HostTensor::vector(values)).unwrap();
    }
    params
}

/// The logits for `n` prepared images.
pub(crate) fn infer(graph: &Graph, params: &ParamStore, n: usize, images: &[f32]) -> Vec<f32> {
    let mut session = CpuEngine::new(Some(2)).open(Arc::new(graph.clone()), params).unwrap();
    session.infer(n, Images::Array(images)).unwrap()
}

/// The logits for `n` pictures.
pub(crate) fn infer_pixels(
    graph: &Graph,
    params: &ParamStore,
    n: usize,
    pixels: &[u8],
    scale: &PixelScale,
) -> Vec<f32> {
    let mut session = CpuEngine::new(Some(2)).open(Arc::new(graph.clone()), params).unwrap();
    session.infer(n, Images::Pixels(pixels, scale)).unwrap()
}
