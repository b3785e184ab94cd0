//! Fronts, on a small VGG.

use defrost_graph::{Graph, GraphBuilder, Init, Loss, Marking, ParamKind, Statistics, op};
use defrost_tensor::{Activation, ConvDesc, PoolDesc, Shape4};

use super::{names, only, replay, resnet, train};
use crate::{Options, Plan, Purpose};

/// VGG's front, small: two convolutions with biases before each of three pools, a head.
fn vgg() -> Graph {
    let mut b = GraphBuilder::new("small", Shape4::new(1, 3, 32, 32));
    let mut x = Graph::INPUT;
    for (stage, channels) in [(3, 16), (16, 32), (32, 32)].into_iter().enumerate() {
        b.stage(format!("stage{stage}"), false);
        for (i, from) in [channels.0, channels.1].into_iter().enumerate() {
            let desc = ConvDesc::new(from, channels.1, 3, 1, 1);
            let init = Init::KaimingNormalFanOut { fan_out: channels.1 };
            let mut param = |leaf: &str, shape: Vec<usize>, kind| {
                b.param(format!("conv{stage}{i}.{leaf}"), shape, kind, init).unwrap()
            };
            let weight = param("weight", desc.weight_shape().to_vec(), ParamKind::ConvWeight);
            let bias = param("bias", vec![channels.1], ParamKind::Bias);
            x = b
                .node(format!("conv{stage}{i}"), op::Conv2d { desc, weight, bias: Some(bias) }, &[x])
                .unwrap();
            x = b.node(format!("relu{stage}{i}"), op::Activate(Activation::Relu), &[x]).unwrap();
        }
        x = b.node(format!("pool{stage}"), op::MaxPool(PoolDesc::square(2, 2, 0)), &[x]).unwrap();
    }
    b.stage("head", true);
    let y = b.node("flatten", op::Flatten, &[x]).unwrap();
    let weight =
        b.param("fc.weight", [5, 512], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 512 }).unwrap();
    b.node("fc", op::Linear { in_features: 512, out_features: 5, weight, bias: None }, &[y]).unwrap();
    b.finish()
}

#[test]
fn the_front_of_a_frozen_body_runs_in_parts_of_the_batch() {
    let graph = vgg();
    let options = Options::default().packing(true).applying(true);
    let loss = Purpose::Train(Loss::CrossEntropy);
    let plan = |marking: &Marking, n, purpose, limit| {
        Plan::new(&graph, marking, n, purpose, options.in_parts(limit)).unwrap()
    };
    let name = |plan: &Plan| plan.front.as_ref().map(|f| graph.node(f.node).name.clone());
    let head = only(&graph, &["fc."]);
    let (whole, parts) = (plan(&head, 8, loss, None), plan(&head, 8, loss, Some(0)));
    assert_eq!(name(&parts).as_deref(), Some("pool1"));
    let front = parts.front.as_ref().unwrap();
    // Four parts at most; a quarter of what the two largest values take, which are 16 channels of 32 x 32.
    assert_eq!((front.plan.batch, front.last.is_none()), (2, true));
    assert_eq!(front.plan.slots.total(), 2 * 2 * 4 * 16 * 32 * 32);
    assert_eq!(names(front.plan.calls()), ["conv2d", "conv2d", "max_pool", "conv2d", "conv2d", "max_pool"]);
    assert_eq!(names(&parts.prefix), ["conv2d", "conv2d", "max_pool", "flatten"]);
    assert_eq!((parts.cut, &parts.suffix), (whole.cut, &whole.suffix));
    assert!(parts.slots.of[front.value.index()].is_none(), "each part writes its rows");
    parts.front.iter().for_each(|front| replay(&front.plan));
    // What is written behind the front never meets what it reads of it.
    replay(&parts);
    assert!(
        parts.log.last().is_some_and(|line| line.starts_with("front: 6 calls up to `pool1` run 2 pictures"))
    );
    assert!(parts.to_string().contains("front, 2 pictures, 4 times:"), "{parts}");

    // The same work in less memory: that of a part, the front's value and little else.
    assert_eq!((parts.flops(), parts.prefix_flops()), (whole.flops(), whole.prefix_flops()));
    let rows = |plan: &Plan| plan.stages(&graph, &head);
    assert_eq!(rows(&parts), rows(&whole));
    let [a, b] = [&whole, &parts].map(|plan| plan.memory(&graph, 1));
    assert_eq!(a.activations - b.activations, whole.slots.total() - parts.shared());
    assert_eq!(parts.shared(), front.plan.slots.total() + 8 * 4 * 32 * 8 * 8);

    // Not where that costs time: weights are a small part of what the first stage puts out of two pictures, not of the second.
    assert_eq!(name(&plan(&head, 8, loss, Some(1))).as_deref(), Some("pool0"));

    // As few parts as half of the limit asks for, and the last one smaller.
    let seven = plan(&head, 7, loss, Some(7 * front.plan.slots.total() / 2 - 1));
    let front = seven.front.as_ref().unwrap();
    assert_eq!((front.plan.batch, front.last.as_ref().map(|last| last.batch)), (3, Some(1)));
    assert_eq!(seven.flops(), plan(&head, 7, loss, None).flops());

    // Nothing is in parts that fits, of a single picture, behind the cut, or of stages.
    assert!(plan(&head, 8, loss, Some(whole.slots.total())).front.is_none());
    assert!(plan(&head, 1, loss, Some(0)).front.is_none());
    let last = plan(&only(&graph, &["fc.", "conv2"]), 8, loss, Some(0));
    assert_eq!((name(&last).as_deref(), graph.node(last.cut).name.as_str()), (Some("pool1"), "pool1"));
    assert_eq!(last.shared(), last.arena(), "the cut's value has a buffer of its own in any case");
    assert!(last.prefix.is_empty() && last.prefix_flops() > 0);
    assert!(plan(&only(&graph, &["conv00"]), 8, loss, Some(0)).front.is_none());
    assert!(plan(&head, 8, Purpose::Stages, Some(0)).front.is_none());
    let until = |name: &str| graph.node_ids().find(|&id| graph.node(id).name == name).unwrap();
    let infer = |name| plan(&head, 8, Purpose::Infer { until: until(name) }, Some(0));
    assert_eq!(name(&infer("fc")).as_deref(), Some("pool1"));
    assert_eq!(name(&infer("pool1")).as_deref(), Some("pool0"));
    assert!(infer("pool0").front.is_none());
}

#[test]
fn statistics_of_the_batch_are_behind_the_front() {
    let graph = resnet();
    let options = Options::default().packing(true).in_parts(Some(0));
    let head = only(&graph, &["fc."]);
    let front = |marking: &Marking| train(&graph, marking, options).front.map(|front| front.node);
    let pool = graph.node_ids().find(|&id| graph.node(id).name == "stem.pool");
    assert!(front(&head).is_some_and(|node| Some(node) >= pool));
    let mut marking = head;
    let bn = graph.node_ids().find(|&id| graph.node(id).name == "stem.bn").unwrap();
    marking.set_statistics(bn, Statistics::Batch);
    assert_eq!(front(&marking), None);
}
