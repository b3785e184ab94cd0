//! What selectors catch, and what they must not.

use super::{nets, phase, training};
use crate::{PhaseSpec, RecipeErrorKind, Selection, Selector, keras_layers};

fn select(graph: &defrost_graph::Graph, train: impl Into<Selection>) -> Vec<String> {
    let phase = phase(graph, PhaseSpec::new("p", 1, train)).unwrap();
    training(graph, &phase).into_iter().map(str::to_owned).collect()
}

/// The leading `n` segments of what trains, each once, in order.
fn places(graph: &defrost_graph::Graph, train: impl Into<Selection>, n: usize) -> Vec<String> {
    let mut places = Vec::new();
    for name in select(graph, train) {
        let place = name.split('.').take(n).collect::<Vec<_>>().join(".");
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

#[test]
fn a_name_matches_whole_segments_and_a_bare_prefix_is_warned_of() {
    let graph = nets::mobilenet_v2();
    assert_eq!(places(&graph, "features.1", 2), ["features.1"]);
    let one = phase(&graph, PhaseSpec::new("p", 1, "features.1")).unwrap();
    assert_eq!(
        one.warnings,
        ["`features.1` is `features.1` alone; as a bare prefix, as in Keras code, it would also catch \
          `features.10` to `features.18`"]
    );
    let star = phase(&graph, PhaseSpec::new("p", 1, "features.1*")).unwrap();
    assert_eq!(places(&graph, "features.1*", 2).len(), 10);
    assert_eq!(
        star.warnings,
        ["`features.1*` also catches `features.10` to `features.18`; `features.1` alone does not"]
    );
    let regex = phase(&graph, PhaseSpec::new("p", 1, Selector::Regex(r"features\.1.*".into()))).unwrap();
    assert!(
        regex.warnings[0].contains("also catches `features.10` to `features.18`"),
        "{:?}",
        regex.warnings
    );
    assert!(phase(&graph, PhaseSpec::new("p", 1, "features.3")).unwrap().warnings.is_empty());
}

#[test]
fn words_globs_and_regexes() {
    let graph = nets::resnet18();
    assert_eq!(select(&graph, "head"), ["fc.weight", "fc.bias"]);
    assert_eq!(select(&graph, "all").len(), 62);
    assert_eq!(select(&graph, "body").len(), 60);
    assert_eq!(select(&graph, ["all", "!body"]), ["fc.weight", "fc.bias"]);
    assert_eq!(select(&graph, "!body"), ["fc.weight", "fc.bias"]);
    assert_eq!(select(&graph, "biases"), ["fc.bias"]);
    assert!(select(&graph, "norms").iter().all(|n| n.contains("bn") || n.contains("downsample.1")));
    assert_eq!(places(&graph, "layer?.0", 2), ["layer1.0", "layer2.0", "layer3.0", "layer4.0"]);
    assert_eq!(places(&graph, "layer[34]", 1), ["layer3", "layer4"]);
    assert_eq!(places(&graph, "{layer4,fc}", 1), ["layer4", "fc"]);
    assert_eq!(select(&graph, "layer4.*.conv1"), ["layer4.0.conv1.weight", "layer4.1.conv1.weight"]);
    assert_eq!(select(&graph, "layer4.**.bias").len(), 5);
    assert_eq!(places(&graph, Selector::Regex("layer[34]".into()), 1), ["layer3", "layer4"]);
    // A regular expression matches whole segments too.
    let half = phase(&graph, PhaseSpec::new("p", 1, Selector::Regex("layer".into()))).unwrap_err();
    assert!(matches!(half.kind(), RecipeErrorKind::NoMatch { .. }));
}

#[test]
fn places_are_counted_from_the_end() {
    let graph = nets::resnet18();
    assert_eq!(places(&graph, Selector::LastStages(2), 1), ["layer4", "fc"]);
    assert_eq!(places(&graph, Selector::LastBlocks(2), 2), ["layer4.1", "fc.weight", "fc.bias"]);
    let two = ["layer4.1.conv2.weight", "layer4.1.bn2.weight", "layer4.1.bn2.bias", "fc.weight", "fc.bias"];
    assert_eq!(select(&graph, Selector::LastLayers(2)), two);
    // Groups are stages here: conv1, layer1 to layer4, fc.
    assert_eq!(places(&graph, Selector::FreezeTo(-2), 1), ["layer4", "fc"]);
    assert_eq!(places(&graph, Selector::FreezeTo(4), 1), ["layer4", "fc"]);
    let error = phase(&graph, PhaseSpec::new("p", 1, Selector::FreezeTo(6))).unwrap_err();
    let said =
        "`phase.1.train`: { freeze_to = 6 } asks for more than there is: resnet18 has 6 parameter groups";
    assert_eq!(error.to_string(), said);
    let error = phase(&graph, PhaseSpec::new("p", 1, Selector::LastStages(7))).unwrap_err();
    assert!(error.to_string().contains("resnet18 has 6 stages with parameters"), "{error}");
    // Lasagne's layers[-3:-1]: the two before the output.
    let graph = nets::vgg16();
    let lasagne = [Selector::LastLayers(3), Selector::Not(Box::new(Selector::LastLayers(1)))];
    assert_eq!(places(&graph, lasagne, 2), ["classifier.0", "classifier.3"]);
}

#[test]
fn a_layer_goes_before_the_stage_that_is_called_after_it() {
    let graph = nets::resnet18();
    assert_eq!(select(&graph, "conv1"), ["conv1.weight"]);
    let warned = phase(&graph, PhaseSpec::new("p", 1, "conv1")).unwrap().warnings;
    assert!(warned[0].contains("{ stage = \"conv1\" }"), "{warned:?}");
    assert_eq!(select(&graph, Selector::Stage("conv1".into())), ["conv1.weight", "bn1.weight", "bn1.bias"]);
    let graph = nets::vgg16();
    assert_eq!(select(&graph, "features.0"), ["features.0.weight", "features.0.bias"]);
    assert_eq!(select(&graph, Selector::Stage("features.0".into())).len(), 4);
}

#[test]
fn keras_layers_are_counted_as_keras_does() {
    for (graph, layers) in [(nets::vgg16(), 19), (nets::resnet50(), 175), (nets::mobilenet_v2(), 154)] {
        assert_eq!(keras_layers(&graph).len(), layers, "{}", graph.name());
    }
    let names = |graph: &defrost_graph::Graph, from: usize| -> Vec<String> {
        keras_layers(graph)[from..].iter().map(|l| l.name.clone()).collect()
    };
    // keras.applications.ResNet50(include_top=False): conv2_block1_{1_conv … 2_relu, 0_conv, 3_conv, 0_bn, 3_bn, add, out}.
    let resnet = names(&nets::resnet50(), 0);
    assert_eq!(
        resnet[..19],
        [
            "input",
            "conv1_pad",
            "conv1",
            "bn1",
            "relu",
            "maxpool_pad",
            "maxpool",
            "layer1.0.conv1",
            "layer1.0.bn1",
            "layer1.0.relu1",
            "layer1.0.conv2",
            "layer1.0.bn2",
            "layer1.0.relu2",
            "layer1.0.downsample.0",
            "layer1.0.conv3",
            "layer1.0.downsample.1",
            "layer1.0.bn3",
            "layer1.0.add",
            "layer1.0.relu"
        ]
    );
    // T2: the last 20 are the last two blocks, the head on top of them.
    let graph = nets::resnet50();
    assert_eq!(
        places(&graph, Selector::LastKerasLayers(20), 2),
        ["layer4.1", "layer4.2", "fc.weight", "fc.bias"]
    );
    // K2 on VGG16: block5_conv2, block5_conv3, block5_pool.
    let graph = nets::vgg16();
    assert_eq!(
        places(&graph, Selector::LastKerasLayers(3), 2),
        ["features.26", "features.28", "classifier.0", "classifier.3", "classifier.6"]
    );
    // MobileNetV2: block_16_project, block_16_project_BN, Conv_1, Conv_1_bn, out_relu.
    let graph = nets::mobilenet_v2();
    assert_eq!(
        names(&graph, 149),
        ["features.17.conv.2", "features.17.conv.3", "features.18.0", "features.18.1", "features.18.2"]
    );
    assert_eq!(
        names(&graph, 0)[9..14],
        [
            "features.2.conv.0.0",
            "features.2.conv.0.1",
            "features.2.conv.0.2",
            "features.2.conv.1.0_pad",
            "features.2.conv.1.0"
        ]
    );
    let error = phase(&graph, PhaseSpec::new("p", 1, Selector::LastKerasLayers(155))).unwrap_err();
    assert!(error.to_string().contains("mobilenet_v2 has 154 layers as Keras counts"), "{error}");
}

#[test]
fn what_matches_nothing_is_told_with_what_was_meant() {
    let graph = nets::resnet18();
    let error = phase(&graph, PhaseSpec::new("p", 1, ["head", "layr4"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`phase.1.train`: `layr4` matches nothing in resnet18; did you mean `layer4`?"
    );
    let error = phase(&graph, PhaseSpec::new("p", 1, "layer4.[")).unwrap_err();
    assert!(matches!(error.kind(), RecipeErrorKind::Pattern { .. }), "{error}");
    let error = phase(&graph, PhaseSpec::new("p", 1, Selection(vec![]))).unwrap_err();
    assert!(matches!(error.kind(), RecipeErrorKind::NothingTrains { .. }), "{error}");
}
