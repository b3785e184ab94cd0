//! Groups, rates and markings.

use defrost_graph::{BnMode, Graph, NodeId};

use super::{nets, phase, training};
use crate::{
    AdamW, Grouping, Lr, Norm, NormMode, Optimizer, Phase, PhaseSpec, RecipeErrorKind, Selection, Selector,
    Sgd, Thaw, Unit,
};

fn sgd() -> Optimizer {
    Optimizer::Sgd(Sgd::default())
}

fn rates(phase: &Phase) -> Vec<(&str, f64)> {
    phase.groups.iter().map(|g| (g.name.as_str(), g.lr)).collect()
}

fn close(got: &[(&str, f64)], want: &[(&str, f64)]) {
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (g, w) in got.iter().zip(want) {
        assert!(g.0 == w.0 && (g.1 - w.1).abs() <= 1e-12 * w.1.abs(), "{got:?} is not {want:?}");
    }
}

fn node(graph: &Graph, name: &str) -> NodeId {
    graph.node_ids().find(|id| graph.node(*id).name == name).unwrap()
}

#[test]
fn every_parameter_is_in_one_group_whether_it_trains_or_not() {
    let graph = nets::resnet18();
    for grouping in [Grouping::Stage, Grouping::Block, Grouping::Whole] {
        let phase = phase(&graph, PhaseSpec::new("p", 1, "head").groups(grouping)).unwrap();
        let mut ids: Vec<_> = phase.groups.iter().flat_map(|g| g.params.iter().copied()).collect();
        ids.sort();
        let trainable: Vec<_> = graph.param_ids().filter(|id| graph.param(*id).kind.is_trainable()).collect();
        assert_eq!(ids, trainable);
        assert_eq!(training(&graph, &phase), ["fc.weight", "fc.bias"]);
    }
}

#[test]
fn a_slice_is_geometric_over_the_groups() {
    // fastai 2.7: slice(1e-5, 1e-3) over three groups is [1e-5, 1e-4, 1e-3].
    let graph = nets::resnet18();
    let parts = |names: &[&[&str]]| -> Vec<Selection> {
        names.iter().map(|n| Selection(n.iter().map(|s| Selector::from(*s)).collect())).collect()
    };
    let split = Grouping::Split(parts(&[&["conv1", "bn1", "layer1", "layer2"], &["body"], &["head"]]));
    let spec = PhaseSpec::new("p", 1, "all").optimizer(sgd()).groups(split);
    let p = phase(&graph, spec.clone().lr([1e-5, 1e-3])).unwrap();
    close(&rates(&p), &[("conv1, bn1, layer1, layer2", 1e-5), ("body", 1e-4), ("head", 1e-3)]);
    let p = phase(&graph, spec.clone().lr(Lr::SliceStop(2e-3))).unwrap();
    close(&rates(&p), &[("conv1, bn1, layer1, layer2", 2e-4), ("body", 2e-4), ("head", 2e-3)]);
    let p = phase(&graph, spec.groups(Grouping::Split(parts(&[&["all"]]))).lr([1e-5, 1e-3])).unwrap();
    close(&rates(&p), &[("all", 1e-3)]);
    let uncovered =
        PhaseSpec::new("p", 1, "all").groups(Grouping::Split(parts(&[&["body"], &["fc.weight"]])));
    let error = phase(&graph, uncovered).unwrap_err();
    assert_eq!(error.to_string(), "`phase.1.groups`: no group takes `fc.bias`; add a part that matches it");
}

#[test]
fn layer_decay_is_timms() {
    // timm: param_groups_layer_decay(resnet18, layer_decay=0.75): ids 0 (stem) to 9 (head), scale 0.75^(9 - id).
    let graph = nets::resnet18();
    let decay = Lr::LayerDecay { base: 1.0, layer_decay: 0.75, min_scale: 0.0 };
    let p = phase(&graph, PhaseSpec::new("p", 1, "all").optimizer(sgd()).lr(decay.clone())).unwrap();
    assert_eq!(p.groups.len(), 10);
    for (i, group) in p.groups.iter().enumerate() {
        assert!((group.lr - 0.75f64.powi(9 - i as i32)).abs() < 1e-15, "{group:?}");
    }
    assert_eq!((p.groups[0].name.as_str(), p.groups[8].name.as_str()), ("conv1", "layer4.1"));
    let p = phase(&nets::resnet50(), PhaseSpec::new("p", 1, "all").optimizer(sgd()).lr(decay)).unwrap();
    assert_eq!(p.groups.len(), 18);
    let floor = Lr::LayerDecay { base: 1.0, layer_decay: 0.5, min_scale: 0.1 };
    let p = phase(&graph, PhaseSpec::new("p", 1, "all").optimizer(sgd()).lr(floor)).unwrap();
    assert_eq!((p.groups[0].lr, p.groups[7].lr), (0.1, 0.25));
}

#[test]
fn norms_and_biases_have_no_decay_and_their_own_multipliers() {
    let graph = nets::vgg16();
    let spec = PhaseSpec { bias_lr: 2.0, ..PhaseSpec::new("p", 1, "all").lr(1e-3) };
    let p = phase(&graph, spec).unwrap();
    assert_eq!(p.groups[0].name, "features.0");
    assert_eq!((p.groups[0].lr, p.groups[0].weight_decay), (1e-3, 0.01));
    assert_eq!(p.groups[1].name, "features.0 (bias)");
    assert_eq!((p.groups[1].lr, p.groups[1].weight_decay), (2e-3, 0.0));
    let graph = nets::resnet18();
    let all = Optimizer::AdamW(AdamW { decay_norm_and_bias: true, ..AdamW::default() });
    let p = phase(&graph, PhaseSpec::new("p", 1, "all").optimizer(all)).unwrap();
    assert_eq!(p.groups.len(), 6);
    assert!(p.groups.iter().all(|g| g.weight_decay == 0.01));
}

#[test]
fn rates_by_name_and_what_two_names_match() {
    let graph = nets::mobilenet_v2();
    let lr = Lr::by_name(1e-3, [("features.2", 1e-5), ("features.{3,4}", 5e-5)]);
    let p = phase(&graph, PhaseSpec::new("p", 1, "all").optimizer(sgd()).lr(lr)).unwrap();
    let rate = |name: &str| p.groups.iter().find(|g| g.name.starts_with(name)).unwrap().lr;
    assert_eq!((rate("features.1"), rate("features.2"), rate("features.3")), (1e-3, 1e-5, 5e-5));
    assert_eq!((rate("features.4"), rate("features.10"), rate("classifier")), (5e-5, 1e-3, 1e-3));
    let lr = Lr::by_name(1e-3, [("features.2", 1e-5), ("features.*", 5e-5)]);
    let error = phase(&graph, PhaseSpec::new("p", 1, "all").lr(lr)).unwrap_err();
    assert!(matches!(error.kind(), RecipeErrorKind::Ambiguous { .. }), "{error}");
    assert_eq!(error.key(), "phase.1.lr");
}

#[test]
fn each_tradition_of_batch_norm_has_its_bits() {
    let graph = nets::resnet18();
    let (body, last) = (node(&graph, "bn1"), node(&graph, "layer4.1.bn2"));
    let modes = |norm: Norm| {
        let p = phase(&graph, PhaseSpec::new("p", 1, ["layer4", "head"]).norm(norm)).unwrap();
        let mode = |node| p.marking.bn_mode(&graph, node).unwrap();
        (mode(body), mode(last))
    };
    assert_eq!(modes(NormMode::Auto.into()), (BnMode::Frozen, BnMode::Train));
    assert_eq!(modes(NormMode::Frozen.into()), (BnMode::Frozen, BnMode::Frozen));
    assert_eq!(modes(NormMode::AffineOnly.into()), (BnMode::Frozen, BnMode::AffineOnly));
    assert_eq!(modes(NormMode::TrainBn.into()), (BnMode::Train, BnMode::Train));
    assert_eq!(modes(NormMode::Batch.into()), (BnMode::BatchOnly, BnMode::TrainKeepingRunning));
    assert_eq!(modes(NormMode::Drifting.into()), (BnMode::Drifting, BnMode::Train));
    let one =
        Norm { default: NormMode::Auto, by_name: [("layer4.1".to_owned(), NormMode::AffineOnly)].into() };
    assert_eq!(modes(one), (BnMode::Frozen, BnMode::AffineOnly));
    // fastai's freeze(): the head and every normalisation train.
    let p = phase(&graph, PhaseSpec::new("p", 1, "head").norm(NormMode::TrainBn)).unwrap();
    let names = training(&graph, &p);
    assert_eq!(names.len(), 42);
    assert!(names.iter().all(|n| n.contains("bn") || n.contains("downsample.1") || n.starts_with("fc")));
}

#[test]
fn thaws_are_resolved_before_anything_runs() {
    let graph = nets::resnet18();
    let thaw = Thaw { every: 1, lr_factor: 0.5, ..Thaw::default() };
    let p = phase(&graph, PhaseSpec::new("p", 9, "head").optimizer(sgd()).thaw(thaw)).unwrap();
    let names: Vec<_> = p.thaws.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["layer4", "layer3", "layer2", "layer1", "conv1"]);
    let counts: Vec<_> = (0..p.steps()).map(|i| p.step(i).0.params.count()).collect();
    assert_eq!(counts, [2, 17, 32, 47, 59, 62]);
    assert_eq!(p.step(2).1[0].lr, 0.25e-3);
    assert_eq!(p.step(99).0.params.count(), 62);
    let explicit = Thaw { at: vec![2, 4], steps: vec!["layer4".into(), "body".into()], ..Thaw::default() };
    let p = phase(&graph, PhaseSpec::new("p", 9, "head").thaw(explicit)).unwrap();
    assert_eq!(p.thaws.iter().map(|s| s.marking.params.count()).collect::<Vec<_>>(), [17, 62]);
    let at_once = Thaw { at: vec![2], unit: Unit::All, ..Thaw::default() };
    assert_eq!(phase(&graph, PhaseSpec::new("p", 9, "head").thaw(at_once)).unwrap().steps(), 2);
    let wrong = Thaw { at: vec![2], steps: vec!["layer5".into()], ..Thaw::default() };
    let error = phase(&graph, PhaseSpec::new("p", 9, "head").thaw(wrong)).unwrap_err();
    assert_eq!(error.key(), "phase.1.thaw.steps");
    // A thaw reaches batch norms as a phase does.
    let p = phase(&graph, PhaseSpec::new("p", 9, "head").thaw(Thaw { every: 1, ..Thaw::default() })).unwrap();
    let bn = node(&graph, "layer4.1.bn2");
    assert_eq!(p.marking.bn_mode(&graph, bn), Some(BnMode::Frozen));
    assert_eq!(p.step(1).0.bn_mode(&graph, bn), Some(BnMode::Train));
}
