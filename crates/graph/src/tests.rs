//! Emission on small graphs.

use defrost_tensor::{Activation, Call, ConvDesc, NormDesc, PoolDesc, Shape4};

use crate::*;

/// conv → relu → (conv ↘, identity) → add → pool → flatten → linear
fn residual() -> Graph {
    let mut b = GraphBuilder::new("tiny", Shape4::new(1, 3, 8, 8));
    b.stage("body", false);
    let desc = ConvDesc::new(3, 4, 3, 1, 1);
    let conv = |b: &mut GraphBuilder, name: &str, desc: ConvDesc, x| {
        let fan_out = desc.out_channels * 9;
        let weight = b
            .param(
                format!("{name}.weight"),
                desc.weight_shape(),
                ParamKind::ConvWeight,
                Init::KaimingNormalFanOut { fan_out },
            )
            .unwrap();
        b.node(name, op::Conv2d { desc, weight, bias: None }, &[x]).unwrap()
    };
    let a = conv(&mut b, "conv1", desc, Graph::INPUT);
    let a = b.node("relu", op::Activate(Activation::Relu), &[a]).unwrap();
    let c = conv(&mut b, "conv2", ConvDesc::new(4, 4, 3, 1, 1), a);
    let s = b.node("add", op::Add, &[c, a]).unwrap();
    let p = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[s]).unwrap();
    let f = b.node("flatten", op::Flatten, &[p]).unwrap();
    b.stage("head", true);
    let weight =
        b.param("fc.weight", [5, 4], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 4 }).unwrap();
    let bias = b.param("fc.bias", [5], ParamKind::Bias, Init::Constant(0.0)).unwrap();
    b.node("fc", op::Linear { in_features: 4, out_features: 5, weight, bias: Some(bias) }, &[f]).unwrap();
    b.finish()
}

fn emit(graph: &Graph, marking: &Marking, needs: Vec<bool>) -> (Values, Vec<Instruction>) {
    let mut e = Emitter::new(graph, marking, 2, true, needs, false);
    graph.node_ids().for_each(|id| e.forward(id));
    e.loss(Loss::CrossEntropy);
    graph.node_ids().rev().for_each(|id| e.backward(id));
    e.finish()
}

fn names(calls: &[Instruction], pass: Pass) -> Vec<&'static str> {
    calls.iter().filter(|i| i.pass == pass).map(|i| i.call.name()).collect()
}

#[test]
fn a_skip_connection_shares_its_gradient_and_is_then_added_to() {
    let graph = residual();
    let marking = Marking::new(&graph, ParamMask::all(&graph));
    let needs = graph.node_ids().map(|id| id != Graph::INPUT).collect();
    let (_, calls) = emit(&graph, &marking, needs);
    assert_eq!(names(&calls, Pass::Forward), ["conv2d", "activate", "conv2d", "add", "avg_pool", "gemm"]);
    // The sum's gradient serves both branches; conv2 has read it by the time it adds its own part, so no copy is made.
    assert_eq!(
        names(&calls, Pass::Backward),
        [
            "gemm",
            "channel_sum",
            "gemm",
            "avg_pool_grad",
            "conv2d_grad_weight",
            "copy",
            "conv2d_grad_input",
            "activate_grad",
            "conv2d_grad_weight"
        ]
    );
    // conv2's own output gradient is that same value, read by the very call that would overwrite it: hence the copy.
    let (grad_out, grad_in) = calls
        .iter()
        .find_map(|i| match i.call {
            Call::Conv2dGradInput(c) => Some((c.grad_out, c.grad_in)),
            _ => None,
        })
        .unwrap();
    assert_ne!(grad_out, grad_in);
}

#[test]
fn what_is_frozen_gets_no_backward_call() {
    let graph = residual();
    let fc = |id: ParamId| graph.param(id).name.starts_with("fc.");
    let marking = Marking::new(&graph, ParamMask::of(&graph, fc));
    let needs = graph.node_ids().map(|id| id == graph.output()).collect();
    let (values, calls) = emit(&graph, &marking, needs);
    assert_eq!(names(&calls, Pass::Backward), ["channel_sum", "gemm"]);
    let grads = values.iter().filter(|(_, v)| matches!(v.origin, Origin::ParamGrad(_))).count();
    assert_eq!(grads, 2);
}

#[test]
fn bn_modes_name_the_three_bits() {
    let mut b = GraphBuilder::new("bn", Shape4::new(1, 2, 4, 4));
    b.stage("s", false);
    let mut p = |name: &str, kind, v| b.param(name, [2], kind, Init::Constant(v)).unwrap();
    let weight = p("bn.weight", ParamKind::NormWeight, 1.0);
    let bias = p("bn.bias", ParamKind::NormBias, 0.0);
    let running_mean = p("bn.running_mean", ParamKind::RunningMean, 0.0);
    let running_var = p("bn.running_var", ParamKind::RunningVar, 1.0);
    let desc = NormDesc::torch(2);
    let bn = op::BatchNorm { desc, weight, bias, running_mean, running_var };
    let node = b.node("bn", bn, &[Graph::INPUT]).unwrap();
    let graph = b.finish();
    assert_eq!(ParamMask::all(&graph).count(), 2, "buffers never train");
    let mut marking = Marking::new(&graph, ParamMask::all(&graph));
    assert_eq!(marking.bn_mode(&graph, node), Some(BnMode::Train));
    marking.set_statistics(node, Statistics::Running);
    assert_eq!(marking.bn_mode(&graph, node), Some(BnMode::AffineOnly));
    assert_eq!(Marking::frozen(&graph).bn_mode(&graph, node), Some(BnMode::Frozen));
}

#[test]
fn starts_are_keyed_by_name_and_seed() {
    let graph = residual();
    let (a, b) = (ParamStore::init(&graph, 1), ParamStore::init(&graph, 2));
    assert_eq!(a, ParamStore::init(&graph, 1));
    assert_ne!(a.get("conv1.weight"), b.get("conv1.weight"));
    let std = |t: &defrost_tensor::HostTensor| {
        (t.data().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / t.len() as f64).sqrt()
    };
    let got = std(a.get("conv2.weight").unwrap());
    assert!((got - (2.0f64 / 36.0).sqrt()).abs() < 0.05, "{got}");
}

#[test]
fn a_misfit_names_its_node() {
    let mut b = GraphBuilder::new("bad", Shape4::new(1, 3, 8, 8));
    b.stage("s", false);
    let desc = ConvDesc::new(4, 4, 3, 1, 1);
    let weight = b.param("w", desc.weight_shape(), ParamKind::ConvWeight, Init::Constant(0.0)).unwrap();
    let error = b.node("conv1", op::Conv2d { desc, weight, bias: None }, &[Graph::INPUT]).unwrap_err();
    assert_eq!(error.to_string(), "node `conv1`: input [1, 3, 8, 8] has 3 channels, the operation takes 4");
    assert!(b.param("w", [1], ParamKind::Bias, Init::Constant(0.0)).is_err());
}
