//! The architectures against what torchvision and Keras publish.

use defrost_graph::{Graph, ParamKind};
use indexmap::IndexMap;
use serde::de::IgnoredAny;

use crate::*;

fn build(arch: Arch, size: usize) -> Graph {
    ModelSpec::new(arch, 1000).with_image_size(size).build().unwrap()
}

/// The part of a golden file that tells torchvision's names in torchvision's order.
#[derive(serde::Deserialize)]
struct Golden {
    grads: IndexMap<String, IgnoredAny>,
    running: IndexMap<String, IgnoredAny>,
}

fn golden(arch: Arch) -> Golden {
    let path = format!("{}/../../tests/golden/{arch}-64.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn shape<'a>(graph: &'a Graph, name: &str) -> &'a [usize] {
    &graph.param(graph.find_param(name).unwrap_or_else(|| panic!("{name}"))).shape
}

fn node_shape(graph: &Graph, name: &str) -> [usize; 3] {
    let node = graph.nodes().iter().find(|n| n.name == name).unwrap_or_else(|| panic!("{name}"));
    [node.shape.c, node.shape.h, node.shape.w]
}

#[test]
fn counts_are_the_published_ones() {
    for (arch, parameters, gmacs) in [
        (Arch::EfficientnetLite0, 4_652_008, 0.385),
        (Arch::Resnet18, 11_689_512, 1.814),
        (Arch::Resnet50, 25_557_032, 4.089),
        (Arch::MobilenetV2, 3_504_872, 0.301),
        (Arch::Vgg16, 138_357_544, 15.47),
    ] {
        let s = summary(&build(arch, 224));
        assert_eq!(s.parameters, parameters, "{arch}");
        assert!((s.macs as f64 / 1e9 - gmacs).abs() < 0.01 * gmacs, "{arch}: {} MACs", s.macs);
        assert_eq!(s.stages.iter().map(|s| s.macs).sum::<u64>(), s.macs, "{arch}");
        assert_eq!(s.stages.iter().filter(|s| s.head).count(), 1, "{arch}");
    }
    // Keras counts moving statistics as parameters.
    let keras = |arch| {
        let s = summary(&ModelSpec::new(arch, 1000).with_geometry(Geometry::Keras).build().unwrap());
        s.parameters + s.buffers
    };
    assert_eq!(keras(Arch::Resnet50), 25_636_712);
    assert_eq!(keras(Arch::MobilenetV2), 3_538_984);
    assert_eq!(keras(Arch::Vgg16), 138_357_544);
}

#[test]
fn names_and_order_are_torchvisions() {
    for arch in Arch::ALL {
        let graph = ModelSpec::new(arch, 10).with_image_size(64).build().unwrap();
        let names = |choose: fn(ParamKind) -> bool| -> Vec<_> {
            graph.params().iter().filter(|p| choose(p.kind)).map(|p| p.name.clone()).collect()
        };
        let golden = golden(arch);
        assert!(names(ParamKind::is_trainable).iter().eq(golden.grads.keys()), "{arch}");
        assert!(names(|k| !k.is_trainable()).iter().eq(golden.running.keys()), "{arch}");
        for (i, p) in graph.params().iter().enumerate() {
            if p.kind == ParamKind::NormWeight {
                let leaves: Vec<_> = graph.params()[i..i + 4].iter().map(|p| p.kind).collect();
                use ParamKind::{NormBias, NormWeight, RunningMean, RunningVar};
                assert_eq!(leaves, [NormWeight, NormBias, RunningMean, RunningVar]);
            }
        }
    }
}

#[test]
fn shapes_are_torchvisions() {
    let r18 = build(Arch::Resnet18, 64);
    for (name, want) in [
        ("conv1.weight", &[64, 3, 7, 7][..]),
        ("bn1.running_var", &[64]),
        ("layer1.1.conv2.weight", &[64, 64, 3, 3]),
        ("layer2.0.conv1.weight", &[128, 64, 3, 3]),
        ("layer2.0.downsample.0.weight", &[128, 64, 1, 1]),
        ("layer4.0.downsample.1.bias", &[512]),
        ("layer4.1.bn2.weight", &[512]),
        ("fc.weight", &[1000, 512]),
    ] {
        assert_eq!(shape(&r18, name), want, "{name}");
    }
    let r50 = build(Arch::Resnet50, 64);
    for (name, want) in [
        ("layer1.0.conv1.weight", &[64, 64, 1, 1][..]),
        ("layer1.0.conv2.weight", &[64, 64, 3, 3]),
        ("layer1.0.conv3.weight", &[256, 64, 1, 1]),
        ("layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("layer1.1.conv1.weight", &[64, 256, 1, 1]),
        ("layer3.0.conv1.weight", &[256, 512, 1, 1]),
        ("layer3.5.conv3.weight", &[1024, 256, 1, 1]),
        ("layer4.0.downsample.0.weight", &[2048, 1024, 1, 1]),
        ("fc.weight", &[1000, 2048]),
    ] {
        assert_eq!(shape(&r50, name), want, "{name}");
    }
    let mobile = build(Arch::MobilenetV2, 64);
    for (name, want) in [
        ("features.0.0.weight", &[32, 3, 3, 3][..]),
        ("features.1.conv.0.0.weight", &[32, 1, 3, 3]),
        ("features.1.conv.1.weight", &[16, 32, 1, 1]),
        ("features.2.conv.0.0.weight", &[96, 16, 1, 1]),
        ("features.2.conv.1.0.weight", &[96, 1, 3, 3]),
        ("features.2.conv.2.weight", &[24, 96, 1, 1]),
        ("features.17.conv.3.running_mean", &[320]),
        ("features.18.0.weight", &[1280, 320, 1, 1]),
        ("classifier.1.weight", &[1000, 1280]),
    ] {
        assert_eq!(shape(&mobile, name), want, "{name}");
    }
    let lite = build(Arch::EfficientnetLite0, 64);
    for (name, want) in [
        ("_conv_stem.weight", &[32, 3, 3, 3][..]),
        ("_blocks.0._depthwise_conv.weight", &[32, 1, 3, 3]),
        ("_blocks.0._project_conv.weight", &[16, 32, 1, 1]),
        ("_blocks.3._expand_conv.weight", &[144, 24, 1, 1]),
        ("_blocks.3._depthwise_conv.weight", &[144, 1, 5, 5]),
        ("_blocks.15._bn2.running_mean", &[320]),
        ("_conv_head.weight", &[1280, 320, 1, 1]),
        ("_fc.weight", &[1000, 1280]),
    ] {
        assert_eq!(shape(&lite, name), want, "{name}");
    }
    let vgg = build(Arch::Vgg16, 64);
    for (name, want) in [
        ("features.0.weight", &[64, 3, 3, 3][..]),
        ("features.10.weight", &[256, 128, 3, 3]),
        ("features.28.bias", &[512]),
        ("classifier.0.weight", &[4096, 25088]),
        ("classifier.3.weight", &[4096, 4096]),
        ("classifier.6.weight", &[1000, 4096]),
    ] {
        assert_eq!(shape(&vgg, name), want, "{name}");
    }
}

#[test]
fn stages_and_blocks_are_the_plans_rows_and_timms_groups() {
    let stages = |g: &Graph| g.stages().iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let r18 = build(Arch::Resnet18, 64);
    assert_eq!(stages(&r18), ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]);
    assert_eq!(r18.blocks().len(), 10);
    assert_eq!(r18.blocks()[3].name, "layer2.0");
    assert_eq!(build(Arch::Resnet50, 64).blocks().len(), 18);
    let mobile = build(Arch::MobilenetV2, 64);
    assert_eq!((stages(&mobile).len(), stages(&mobile)[18].as_str()), (20, "features.18"));
    assert_eq!(mobile.blocks().len(), 20);
    let lite = build(Arch::EfficientnetLite0, 64);
    assert_eq!((stages(&lite).len(), lite.blocks().len()), (19, 19));
    assert_eq!(
        [&stages(&lite)[0], &stages(&lite)[5], &stages(&lite)[18]],
        ["_conv_stem", "_blocks.4", "_fc"]
    );
    let vgg = build(Arch::Vgg16, 64);
    let want = [
        "features.0",
        "features.5",
        "features.10",
        "features.17",
        "features.24",
        "classifier.0",
        "classifier.3",
    ];
    assert_eq!(stages(&vgg)[..7], want);
    assert_eq!(vgg.blocks().len(), 16);
    for graph in [r18, mobile, lite, vgg] {
        assert!(graph.stages().last().unwrap().head);
        assert!(graph.params().last().unwrap().name.ends_with(".bias"));
        assert_eq!(graph.stages().iter().filter(|s| s.head).count(), 1);
    }
}

#[test]
fn any_size_from_32_any_channels_any_classes() {
    for arch in Arch::ALL {
        for size in [32, 33, 64, 96, 224] {
            let spec = ModelSpec::new(arch, 7).with_in_channels(5);
            let graph = ModelSpec { image_size: [size, size + 3], ..spec }.build().unwrap();
            assert_eq!((graph.classes(), graph.input_shape().c, graph.input_shape().w), (7, 5, size + 3));
        }
        let error = ModelSpec::new(arch, 7).with_image_size(31).build().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{arch} takes images from 32x32 up, not 31x31: use a larger image size")
        );
        assert!(ModelSpec::new(arch, 0).build().is_err());
        assert!(ModelSpec::new(arch, 1).with_in_channels(0).build().is_err());
    }
    for (size, rows) in [(32, 1), (33, 2), (64, 2), (96, 3), (224, 7)] {
        assert_eq!(node_shape(&build(Arch::Resnet18, size), "layer4.1.relu"), [512, rows, rows]);
        assert_eq!(node_shape(&build(Arch::Resnet50, size), "layer4.2.relu"), [2048, rows, rows]);
        assert_eq!(node_shape(&build(Arch::MobilenetV2, size), "features.18.2"), [1280, rows, rows]);
        assert_eq!(node_shape(&build(Arch::EfficientnetLite0, size), "_swish1"), [1280, rows, rows]);
    }
    assert_eq!(node_shape(&build(Arch::Vgg16, 33), "features.30"), [512, 1, 1]);
    assert_eq!(node_shape(&build(Arch::Vgg16, 33), "avgpool"), [512, 7, 7]);
}

#[test]
fn widths_scale_mobilenet_alone() {
    for (width, millions) in [(0.35, 1.68), (0.5, 1.97), (0.75, 2.64), (1.4, 6.11)] {
        // As timm's tables have mobilenetv2_035, _050, _075 and _140.
        let s = summary(&ModelSpec::new(Arch::MobilenetV2, 1000).with_width(width).build().unwrap());
        assert!((s.parameters as f64 / 1e6 - millions).abs() < 0.005, "{width}: {}", s.parameters);
    }
    let error = ModelSpec::new(Arch::Vgg16, 10).with_width(0.5).build().unwrap_err();
    assert_eq!(error, ZooError::NoWidth { arch: Arch::Vgg16, width: 0.5 });
    assert!(ModelSpec::new(Arch::MobilenetV2, 10).with_width(f32::NAN).build().is_err());
}

#[test]
fn keras_geometry_pads_below_and_right_and_strides_first() {
    use defrost_tensor::{Padding, RunningVariance};
    let spec = ModelSpec::new(Arch::MobilenetV2, 1000).with_geometry(Geometry::Keras);
    let spec = spec.with_image_size(160);
    let graph = spec.build().unwrap();
    assert_eq!(node_shape(&graph, "features.18.2"), [1280, 5, 5]);
    let debug = |graph: &Graph, name: &str| {
        format!("{:?}", graph.nodes().iter().find(|n| n.name == name).unwrap().op)
    };
    let same = format!("padding: {:?}", Padding::Same);
    assert!(debug(&graph, "features.0.0").contains(&same));
    assert!(debug(&graph, "features.2.conv.1.0").contains(&same));
    assert!(!debug(&graph, "features.3.conv.1.0").contains(&same));
    assert!(graph.nodes().iter().filter_map(|n| n.op.norm()).all(|n| n.eps == 1e-3 && n.momentum == 0.001));
    let graph = spec.with_norm_momentum(0.1).build().unwrap();
    assert!(graph.nodes().iter().filter_map(|n| n.op.norm()).all(|n| n.eps == 1e-3 && n.momentum == 0.1));

    let graph = ModelSpec::new(Arch::Resnet50, 1000).with_geometry(Geometry::Keras).build().unwrap();
    assert_eq!(node_shape(&graph, "layer2.0.conv1"), [128, 28, 28]);
    assert_eq!(node_shape(&build(Arch::Resnet50, 224), "layer2.0.conv1"), [128, 56, 56]);
    assert_eq!(shape(&graph, "layer4.0.downsample.0.bias"), [2048]);
    let norms: Vec<_> = graph.nodes().iter().filter_map(|n| n.op.norm()).collect();
    assert!(norms.iter().all(|n| n.eps == 1.001e-5 && n.running_variance == RunningVariance::Biased));
    let spec = ModelSpec::new(Arch::Resnet50, 1000).with_geometry(Geometry::Lasagne);
    let graph = spec.build().unwrap();
    assert_eq!(node_shape(&graph, "maxpool"), [64, 56, 56]);
    assert_eq!(node_shape(&graph, "layer2.0.conv1"), [128, 28, 28]);
    let biases = graph.params().iter().filter(|p| p.kind == ParamKind::Bias).map(|p| p.name.as_str());
    assert!(biases.eq(["conv1.bias", "fc.bias"]));
    let error = ModelSpec::new(Arch::Resnet18, 10).with_geometry(Geometry::Keras).build().unwrap_err();
    assert_eq!(error.to_string(), "resnet18 has no keras geometry: use geometry `torch`");
}

#[test]
fn lite0_pads_as_tensorflow_or_as_timm() {
    let of = |geometry| {
        let spec = ModelSpec::new(Arch::EfficientnetLite0, 10).with_image_size(64);
        let graph = spec.with_geometry(geometry).build().unwrap();
        let node = graph.nodes().iter().find(|n| n.name == "_blocks.3._depthwise_conv").unwrap();
        (format!("{:?}", node.op), graph.nodes().iter().find_map(|n| n.op.norm().copied()).unwrap())
    };
    let (conv, norm) = of(Geometry::Tensorflow);
    assert!(conv.contains("padding: Same") && (norm.eps, norm.momentum) == (1e-3, 0.01), "{conv}");
    let (conv, norm) = of(Geometry::Torch);
    assert!(conv.contains("padding: Symmetric([2, 2])") && norm.eps == 1e-5, "{conv}");
    assert_eq!(ModelSpec::new(Arch::EfficientnetLite0, 10).geometry, Geometry::Tensorflow);
    assert!("tensorflow".parse::<Geometry>().unwrap() == Geometry::Tensorflow);
}

#[test]
fn heads_have_the_names_of_a_sequential() {
    let names = |arch, head: &str| -> Vec<String> {
        let spec = ModelSpec::new(arch, 5).with_image_size(64).with_head(head.parse().unwrap());
        let graph = spec.build().unwrap();
        let stage = graph.stages().iter().position(|s| s.head).unwrap();
        let ids = graph.param_ids().filter(|&id| graph.stage_of(id) == stage);
        ids.map(|id| format!("{} {:?}", graph.param(id).name, graph.param(id).shape)).collect()
    };
    assert_eq!(names(Arch::Resnet18, "linear:0.3"), ["fc.weight [5, 512]", "fc.bias [5]"]);
    assert_eq!(
        names(Arch::MobilenetV2, "linear"),
        ["classifier.1.weight [5, 1280]", "classifier.1.bias [5]"]
    );
    assert_eq!(names(Arch::Vgg16, "original"), ["classifier.6.weight [5, 4096]", "classifier.6.bias [5]"]);
    assert_eq!(
        names(Arch::Resnet18, "pooled:256"),
        ["fc.0.weight [256, 512]", "fc.0.bias [256]", "fc.3.weight [5, 256]", "fc.3.bias [5]"]
    );
    let with_norm = names(Arch::MobilenetV2, "pooled_bn:256,128:0");
    assert_eq!(with_norm[2..4], ["classifier.1.weight [256]", "classifier.1.bias [256]"]);
    assert_eq!(with_norm.last().unwrap(), "classifier.8.bias [5]");
    // Two rows and columns of 512 features at 64 pixels; the published wide layers are gone.
    assert_eq!(names(Arch::Vgg16, "flattened:300")[0], "classifier.0.weight [300, 2048]");
    assert_eq!(names(Arch::Vgg16, "pooled:"), ["classifier.0.weight [5, 512]", "classifier.0.bias [5]"]);
}

#[test]
fn heads_as_text_go_both_ways_and_misfits_are_named() {
    for text in ["original", "linear:0.2", "pooled:512,256:0.5", "pooled_bn:1024:0", "flattened::0.1"] {
        assert_eq!(text.parse::<Head>().unwrap().to_string(), text);
    }
    let error = |text: &str| text.parse::<Head>().unwrap_err().to_string();
    assert!(error("poled:512").starts_with("there is no head `poled`; did you mean `pooled`?"));
    assert!(error("pooled:many").contains("a hidden size is no whole number"));
    assert!(error("pooled:512:1.5").contains("a dropout rate must be at least 0 and less than 1, not 1.5"));
    assert!(error("pooled:0").contains("the size of a hidden layer must be at least 1"));
}

#[test]
fn dropout_is_where_torchvision_has_it() {
    let rates = |arch, head| -> Vec<String> {
        let graph = ModelSpec::new(arch, 5).with_head(head).build().unwrap();
        let dropouts = graph.nodes().iter().filter(|n| n.op.kind() == "dropout");
        dropouts.map(|n| format!("{:?}", n.op)).collect()
    };
    assert_eq!(rates(Arch::Resnet18, Head::Original), [""; 0]);
    assert_eq!(rates(Arch::MobilenetV2, Head::Original), ["Dropout { rate: 0.2, layer: 0 }"]);
    assert_eq!(
        rates(Arch::Vgg16, Head::Original),
        ["Dropout { rate: 0.5, layer: 0 }", "Dropout { rate: 0.5, layer: 1 }"]
    );
    let off = Head::Linear { dropout: 0.0 };
    let graph = ModelSpec::new(Arch::Vgg16, 5).with_head(off).build().unwrap();
    assert!(!graph.nodes().iter().any(|n| n.op.is_random()));
}

#[test]
fn a_zero_head_starts_at_zero_and_nothing_else_does() {
    let spec = ModelSpec { head_init: HeadInit::Zero, ..ModelSpec::new(Arch::MobilenetV2, 5) };
    let graph = spec.with_image_size(32).build().unwrap();
    let store = defrost_graph::ParamStore::init(&graph, 1);
    assert!(store.get("classifier.1.weight").unwrap().data().iter().all(|v| *v == 0.0));
    assert!(store.get("features.18.0.weight").unwrap().data().iter().all(|v| *v != 0.0));
}

#[test]
fn names_suggest_the_nearest() {
    for arch in Arch::ALL {
        assert_eq!(arch.to_string().parse::<Arch>().unwrap(), arch);
    }
    let error = "MobileNetV2".parse::<Arch>().unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no model `MobileNetV2`; did you mean `mobilenet_v2`? There is \
         efficientnet_lite0, mobilenet_v2, resnet18, resnet50, vgg16"
    );
    assert!(!"yolo".parse::<Arch>().unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn a_spec_survives_serialisation() {
    let spec = ModelSpec::new(Arch::Resnet50, 12).with_head("pooled_bn:300".parse().unwrap());
    let text = serde_json::to_string(&spec).unwrap();
    assert!(text.contains(r#""arch":"resnet50""#) && text.contains(r#""kind":"pooled""#), "{text}");
    assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), spec);
    let partial: ModelSpec =
        serde_json::from_str(r#"{"arch": "vgg16", "head": {"kind": "pooled"}}"#).unwrap();
    assert_eq!(partial, ModelSpec::new(Arch::Vgg16, 1000).with_head("pooled".parse().unwrap()));
    assert!(serde_json::from_str::<ModelSpec>(r#"{"arch": "resnet5"}"#).is_err());
    assert!(serde_json::from_str::<ModelSpec>(r#"{"clases": 5}"#).is_err());
}
