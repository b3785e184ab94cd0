//! Passes on a small network: stem, a residual block with a downsampled skip, a head.

use std::ops::Range;

use defrost_graph::{
    Graph, GraphBuilder, Init, Instruction, Loss, Marking, NodeId, Origin, ParamId, ParamKind, ParamMask,
    Pass, Statistics, Value, op,
};
use defrost_tensor::{Activation, Call, ConvDesc, NormDesc, PoolDesc, Shape4};

use crate::{Options, Plan, PlanError, Purpose};

mod front;

fn conv_bn(b: &mut GraphBuilder, name: &str, desc: ConvDesc, x: NodeId) -> NodeId {
    let (weight, zero, one) = (desc.weight_shape(), Init::Constant(0.0), Init::Constant(1.0));
    let init = Init::KaimingNormalFanOut { fan_out: desc.out_channels };
    let weight = b.param(format!("{name}.conv.weight"), weight, ParamKind::ConvWeight, init).unwrap();
    let c = b.node(format!("{name}.conv"), op::Conv2d { desc, weight, bias: None }, &[x]).unwrap();
    let n = desc.out_channels;
    let mut param = |leaf: &str, kind, init| b.param(format!("{name}.bn.{leaf}"), [n], kind, init).unwrap();
    let bn = op::BatchNorm {
        desc: NormDesc::torch(n),
        weight: param("weight", ParamKind::NormWeight, one),
        bias: param("bias", ParamKind::NormBias, zero),
        running_mean: param("running_mean", ParamKind::RunningMean, zero),
        running_var: param("running_var", ParamKind::RunningVar, one),
    };
    b.node(format!("{name}.bn"), bn, &[c]).unwrap()
}

fn resnet() -> Graph {
    let mut b = GraphBuilder::new("tiny", Shape4::new(1, 3, 16, 16));
    let relu =
        |b: &mut GraphBuilder, name: &str, x| b.node(name, op::Activate(Activation::Relu), &[x]).unwrap();
    b.stage("stem", false);
    let x = conv_bn(&mut b, "stem", ConvDesc::new(3, 8, 3, 1, 1), Graph::INPUT);
    let x = relu(&mut b, "stem.relu", x);
    let x = b.node("stem.pool", op::MaxPool(PoolDesc::square(3, 2, 1)), &[x]).unwrap();
    b.stage("layer1", false);
    let y = conv_bn(&mut b, "a", ConvDesc::new(8, 16, 3, 2, 1), x);
    let y = relu(&mut b, "a.relu", y);
    let y = conv_bn(&mut b, "b", ConvDesc::new(16, 16, 3, 1, 1), y);
    let s = conv_bn(&mut b, "skip", ConvDesc::new(8, 16, 1, 2, 0), x);
    let y = b.node("add", op::Add, &[y, s]).unwrap();
    let y = relu(&mut b, "relu", y);
    b.stage("head", true);
    let y = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[y]).unwrap();
    let y = b.node("flatten", op::Flatten, &[y]).unwrap();
    let weight =
        b.param("fc.weight", [5, 16], ParamKind::LinearWeight, Init::FanInUniform { fan_in: 16 }).unwrap();
    b.node("fc", op::Linear { in_features: 16, out_features: 5, weight, bias: None }, &[y]).unwrap();
    b.finish()
}

fn train(graph: &Graph, marking: &Marking, options: Options) -> Plan {
    Plan::new(graph, marking, 4, Purpose::Train(Loss::CrossEntropy), options).unwrap()
}

fn only(graph: &Graph, prefixes: &[&str]) -> Marking {
    let name = |id: ParamId| prefixes.iter().any(|p| graph.param(id).name.starts_with(p));
    Marking::new(graph, ParamMask::of(graph, name))
}

fn names<'a>(calls: impl IntoIterator<Item = &'a Instruction>) -> Vec<&'static str> {
    calls.into_iter().map(|i| i.call.name()).collect()
}

#[test]
fn a_head_alone_costs_no_backward_work_below_it() {
    let graph = resnet();
    let plan = train(&graph, &only(&graph, &["fc."]), Options::default());
    assert_eq!(graph.node(plan.cut).name, "flatten");
    assert_eq!(names(&plan.prefix), ["conv2d", "max_pool", "conv2d", "conv2d", "conv2d", "avg_pool"]);
    assert_eq!(names(&plan.suffix), ["gemm", "softmax_cross_entropy", "gemm"]);
    assert_eq!(plan.setup.len(), 4, "every normalisation is folded");
    assert_eq!(plan.saved(), [], "nothing but the cut's value is needed backward");
}

#[test]
fn a_thawed_block_is_all_that_goes_backward() {
    let graph = resnet();
    let marking = only(&graph, &["fc.", "a.", "b.", "skip."]);
    let plan = train(&graph, &marking, Options::default());
    assert_eq!(graph.node(plan.cut).name, "stem.pool");
    let backward = names(plan.suffix.iter().filter(|i| i.pass == Pass::Backward));
    assert_eq!(backward.iter().filter(|n| **n == "conv2d_grad_weight").count(), 3);
    assert_eq!(
        backward.iter().filter(|n| **n == "conv2d_grad_input").count(),
        1,
        "only b's input wants a gradient"
    );
    let rows = plan.stages(&graph, &marking);
    assert_eq!((rows[0].backward_flops, rows[0].saved_bytes, rows[0].trained), (0, 0, 0));
    assert!(rows[0].in_prefix && !rows[1].in_prefix);
    assert!(rows[1].backward_flops > rows[1].forward_flops && rows[1].saved_bytes > 0);
}

#[test]
fn live_batch_statistics_end_the_prefix_though_nothing_trains_there() {
    let graph = resnet();
    let mut marking = only(&graph, &["fc."]);
    let bn = graph.node_ids().find(|&id| graph.node(id).name == "b.bn").unwrap();
    marking.set_statistics(bn, Statistics::BatchUpdating);
    let plan = train(&graph, &marking, Options::default());
    assert_eq!(graph.node(plan.cut).name, "stem.pool");
    assert_eq!(names(plan.suffix.iter().filter(|i| i.pass == Pass::Backward)), ["gemm"]);
}

#[test]
fn fusion_takes_activations_gradients_and_sums_in() {
    let graph = resnet();
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let (raw, fused) = (train(&graph, &all, Options::raw()), train(&graph, &all, Options::default()));
    let count = |plan: &Plan, name: &str| plan.calls().filter(|i| i.call.name() == name).count();
    assert_eq!((count(&raw, "activate"), count(&raw, "activate_grad")), (3, 3));
    // The later of the two normalisations before the sum adds; both are after the stem's and a's.
    assert_eq!((count(&raw, "add"), count(&fused, "add")), (1, 0));
    let adds = |i: &&Instruction| matches!(i.call, Call::NormTrain(c) if c.residual.is_some());
    let adding: Vec<_> = fused.suffix.iter().filter(adds).collect();
    let [Call::NormTrain(joined)] = adding.iter().map(|i| i.call).collect::<Vec<_>>()[..] else {
        panic!("{adding:?}");
    };
    assert_eq!((adding[0].pass, joined.activation), (Pass::Forward, Activation::Relu));
    let made_of = |v: Value| match fused.values.info(v).origin {
        Origin::Output(node) => graph.node(node).name.as_str(),
        _ => "",
    };
    let of = [Some(joined.x), joined.residual, Some(joined.out)].map(|v| made_of(v.unwrap()));
    assert_eq!(of, ["skip.conv", "b.bn", "relu"]);
    replay(&fused);
    assert_eq!((count(&fused, "activate"), count(&fused, "activate_grad")), (0, 0));
    // The sum's masked gradient serves two branches: what reads it first makes it, by the sum's value.
    let grads = fused.suffix.iter().filter_map(|i| match i.call {
        Call::NormTrainGrad(c) => Some((graph.node(i.node).name.as_str(), c)),
        _ => None,
    });
    let grads: Vec<_> = grads.collect();
    assert_eq!(
        grads.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["skip.bn", "b.bn", "a.bn", "stem.bn"]
    );
    let [(_, skip), (_, b), (_, a), _] = grads[..] else { panic!("{grads:?}") };
    assert_eq!((skip.activation, skip.out, skip.bias), (Activation::Relu, Some(joined.out), None));
    assert_eq!((skip.grad_residual, b.activation), (Some(b.grad_out), Activation::Identity));
    assert!(a.bias.is_some() && a.activation == Activation::Relu && a.grad_residual.is_none());
    let infer =
        Plan::new(&graph, &all, 4, Purpose::Infer { until: graph.output() }, Options::default()).unwrap();
    assert_eq!(
        names(infer.calls()),
        ["conv2d", "max_pool", "conv2d", "conv2d", "conv2d", "avg_pool", "gemm"]
    );
}

/// Replays a plan on which value each slot holds: a read must find the value that the program means.
fn replay(plan: &Plan) {
    let own_buffers: Vec<usize> = (0..plan.slots.bytes.len()).map(|slot| slot << 32).collect();
    let starts = if plan.slots.starts.is_empty() { &own_buffers } else { &plan.slots.starts };
    let range = |v: &Value| plan.slots.of[v.index()].map(|s| starts[s]..starts[s] + plan.slots.bytes[s]);
    let meet = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
    let mut holds: Vec<(Range<usize>, Value)> = Vec::new();
    for i in plan.calls() {
        let (reads, writes) = (i.call.reads(), i.call.writes());
        for (v, read) in reads.iter().filter_map(|v| Some((v, range(v)?))) {
            let held = holds.iter().filter(|(held, _)| meet(held, &read)).map(|(_, v)| *v);
            assert!(held.eq([*v]), "{} reads a slot that holds another value", i.call.name());
            assert!(writes.iter().filter_map(range).all(|w| !meet(&w, &read)), "{}", i.call.name());
        }
        for (v, written) in writes.iter().filter_map(|v| Some((v, range(v)?))) {
            assert!(written.len() >= plan.bytes(*v));
            holds.retain(|(held, _)| !meet(held, &written));
            holds.push((written, *v));
        }
    }
}

/// Bytes of the values in slots that are in use at once, at most.
fn most_in_use(plan: &Plan) -> usize {
    let uses = |v: Value| {
        let calls = plan.calls().enumerate();
        let at: Vec<_> = calls
            .filter(|(_, i)| i.call.reads().contains(&v) || i.call.writes().contains(&v))
            .map(|(at, _)| at)
            .collect();
        Some((*at.first()?, *at.last()?))
    };
    let in_slots = plan.values.iter().filter(|(v, _)| plan.slots.of[v.index()].is_some());
    let lives: Vec<_> = in_slots.filter_map(|(v, _)| Some((plan.bytes(v), uses(v)?))).collect();
    let at = |at: usize| lives.iter().filter(|(_, (a, b))| (*a..=*b).contains(&at)).map(|(len, _)| len).sum();
    (0..plan.calls().count()).map(at).max().unwrap_or(0)
}

#[test]
fn slots_never_mix_values_up_and_save_memory() {
    let graph = resnet();
    for marking in [only(&graph, &["fc."]), only(&graph, &["fc.", "b."]), only(&graph, &[""])] {
        let plan = train(&graph, &marking, Options::default());
        replay(&plan);
        let raw = train(&graph, &marking, Options { share: false, ..Options::default() });
        replay(&raw);
        assert!(plan.slots.total() < raw.slots.total());
        for options in [Options::default(), Options::default().applying(true)] {
            let (plan, packed) =
                (train(&graph, &marking, options), train(&graph, &marking, options.packing(true)));
            replay(&packed);
            // Never below what is in use at the same time.
            assert!(packed.slots.total() <= plan.slots.total() + 64 * plan.slots.bytes.len());
            assert!(packed.slots.total() >= most_in_use(&packed));
        }
    }
    let deep = deep(64);
    let all = Marking::new(&deep, ParamMask::all(&deep));
    let options = Options::default().applying(true);
    let [slots, packed] = [false, true].map(|pack| train(&deep, &all, options.packing(pack)).slots.total());
    assert!(packed < slots, "{packed} bytes in one buffer, {slots} in several");
}

#[test]
fn accumulation_marks_every_parameter_gradient() {
    let graph = resnet();
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let text = |o| format!("{:?}", train(&graph, &all, o).suffix);
    assert_eq!(
        text(Options::default()).matches("accumulate: true").count(),
        1,
        "the skip's part of x's gradient"
    );
    assert!(text(Options::default().accumulating()).matches("accumulate: true").count() >= 6);
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    let graph = resnet();
    let plan = |marking: &Marking, n| {
        Plan::new(&graph, marking, n, Purpose::Train(Loss::CrossEntropy), Options::default()).unwrap_err()
    };
    assert_eq!(plan(&Marking::frozen(&graph), 4), PlanError::NothingTrains);
    assert_eq!(plan(&only(&graph, &["fc."]), 0), PlanError::EmptyBatch);
    let mut b = GraphBuilder::new("v", Shape4::new(1, 3, 1, 1));
    b.stage("s", false);
    conv_bn(&mut b, "x", ConvDesc::new(3, 4, 1, 1, 0), Graph::INPUT);
    let graph = b.finish();
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let refused =
        Plan::new(&graph, &all, 1, Purpose::Train(Loss::CrossEntropy), Options::default()).unwrap_err();
    assert!(refused.to_string().starts_with("node `x.bn` normalises by the batch"), "{refused}");
}

#[test]
fn memory_counts_only_what_trains() {
    let graph = resnet();
    let head = train(&graph, &only(&graph, &["fc."]), Options::default());
    let memory = head.memory(&graph, 2);
    assert_eq!((memory.gradients, memory.optimizer), (4 * 80, 8 * 80));
    let folded = head.values.iter().filter(|(_, i)| matches!(i.origin, Origin::Folded(..))).count();
    assert_eq!(folded, 8);
    let all = train(&graph, &only(&graph, &[""]), Options::default()).memory(&graph, 2);
    assert!(all.activations > memory.activations && all.total() > memory.total());
}

/// How many calls are emitted once more.
fn again(plan: &Plan) -> usize {
    plan.calls().filter(|i| i.pass == Pass::Recompute).count()
}

#[test]
fn what_normalisations_put_out_is_made_again_right_before_it_is_read() {
    let graph = deep(64);
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let kept = train(&graph, &all, Options { renorm: false, ..Options::default() });
    let plan = train(&graph, &all, Options::default());
    replay(&plan);
    assert!(again(&plan) > 3 && again(&kept) == 0 && !plan.recomputes());
    assert!(plan.slots.total() < kept.slots.total());
    assert_eq!(plan.flops(), kept.flops());
    for (at, i) in plan.suffix.iter().enumerate().filter(|(_, i)| i.pass == Pass::Recompute) {
        assert_eq!(i.call.name(), "norm_train");
        let reads = plan.suffix[at + 1].call.reads();
        assert!(i.call.writes().iter().any(|v| reads.contains(v)), "the next call reads it");
    }
    // Where nothing trains before the cut, and where statistics run, nothing is made again.
    assert_eq!(again(&train(&graph, &only(&graph, &["fc."]), Options::default())), 0);
}

#[test]
fn gradients_are_used_up_once_nothing_reads_their_parameter() {
    let graph = resnet();
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let (kept, plan) =
        (train(&graph, &all, Options::default()), train(&graph, &all, Options::default().applying(true)));
    replay(&plan);
    assert_eq!((kept.updates.len(), plan.updates.len()), (0, plan.trained.len()));
    for u in &plan.updates {
        let weight = |v: &defrost_graph::Value| plan.values.info(*v).origin == Origin::Param(u.param);
        for i in &plan.suffix[u.after + 1..] {
            assert!(!i.call.reads().iter().any(weight), "{} reads a stepped parameter", i.call.name());
            assert!(!i.call.writes().contains(&u.grad));
        }
        let slot = plan.slots.of[u.grad.index()].unwrap();
        // Nothing else is in the gradient's slot from its first call to its step.
        let first = plan.suffix.iter().position(|i| i.call.writes().contains(&u.grad)).unwrap();
        for i in &plan.suffix[first..=u.after] {
            let others = i.call.reads().into_iter().chain(i.call.writes()).filter(|v| *v != u.grad);
            assert!(others.filter_map(|v| plan.slots.of[v.index()]).all(|s| s != slot));
        }
    }
    let memory = [&kept, &plan].map(|p| p.memory(&graph, 1));
    assert!(memory[1].gradients == 0 && memory[1].total() < memory[0].total());
    let several = train(&graph, &all, Options::default().applying(true).accumulating());
    assert!(several.updates.is_empty());
}

/// Eight residual blocks behind a stem: deep enough for keeping everything to be dear.
fn deep(channels: usize) -> Graph {
    let mut b = GraphBuilder::new("deep", Shape4::new(1, 3, 16, 16));
    let relu =
        |b: &mut GraphBuilder, name: &str, x| b.node(name, op::Activate(Activation::Relu), &[x]).unwrap();
    b.stage("stem", false);
    let mut x = conv_bn(&mut b, "stem", ConvDesc::new(3, channels, 3, 1, 1), Graph::INPUT);
    for i in 0..8 {
        b.stage(format!("layer{i}"), false);
        let y = conv_bn(&mut b, &format!("{i}.a"), ConvDesc::new(channels, channels, 3, 1, 1), x);
        let y = relu(&mut b, &format!("{i}.a.relu"), y);
        let y = conv_bn(&mut b, &format!("{i}.b"), ConvDesc::new(channels, channels, 3, 1, 1), y);
        let y = b.node(format!("{i}.add"), op::Add, &[y, x]).unwrap();
        x = relu(&mut b, &format!("{i}.relu"), y);
    }
    b.stage("head", true);
    let y = b.node("pool", op::AvgPool(PoolDesc::GLOBAL), &[x]).unwrap();
    let y = b.node("flatten", op::Flatten, &[y]).unwrap();
    let weight = b
        .param("fc.weight", [5, channels], ParamKind::LinearWeight, Init::FanInUniform { fan_in: channels })
        .unwrap();
    b.node("fc", op::Linear { in_features: channels, out_features: 5, weight, bias: None }, &[y]).unwrap();
    b.finish()
}

#[test]
fn what_is_computed_again_is_not_kept() {
    let graph = deep(8);
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let (kept, again) =
        (train(&graph, &all, Options::default()), train(&graph, &all, Options::default().recomputing()));
    assert!(again.recomputes() && !kept.recomputes());
    let (a, b) = (kept.memory(&graph, 1).activations, again.memory(&graph, 1).activations);
    assert!(3 * b < 2 * a, "{b} of {a} bytes");
    replay(&again);
    // At most one more forward pass, and running statistics take a batch in once.
    let ((forward, backward), (same, more)) = (kept.flops(), again.flops());
    assert!(same == forward && more > backward && more < backward + forward, "{more} {backward} {forward}");
    let updates = |plan: &Plan| {
        let running = |i: &&Instruction| {
            let all = i.call.writes();
            all.iter().any(|v| matches!(plan.values.info(*v).origin, Origin::Param(_)))
        };
        plan.calls().filter(running).count()
    };
    assert_eq!((updates(&kept), updates(&again)), (17, 17));
    // Each block's backward pass comes after its own calls, and nothing is emitted that nobody reads.
    let last = again.calls().filter(|i| i.pass == Pass::Recompute).count();
    assert!(last > 8 && last < kept.suffix.iter().filter(|i| i.pass == Pass::Forward).count());

    // What is frozen has nothing to keep; what little is behind a late cut is kept where that is cheaper.
    let head = only(&graph, &["fc."]);
    assert!(!train(&graph, &head, Options::default().recomputing()).recomputes());
    let evaluation = Purpose::Infer { until: graph.output() };
    let plan = Plan::new(&graph, &all, 4, evaluation, Options::default().recomputing()).unwrap();
    assert!(!plan.recomputes());
}

#[test]
fn activations_in_16_bits_take_half_the_bytes_and_gradients_what_they_did() {
    let graph = resnet();
    let all = Marking::new(&graph, ParamMask::all(&graph));
    let purpose = Purpose::Infer { until: graph.output() };
    let infer = |bytes| Plan::new(&graph, &all, 4, purpose, Options::default().storing(bytes)).unwrap();
    let [single, half] = [infer(4), infer(2)].map(|plan| plan.memory(&graph, 0).activations);
    // The logits are a product of matrices and stay in 32 bits.
    let logits = 4 * 4 * 5;
    assert_eq!(2 * (half - logits), single - logits);

    let plans = [4, 2].map(|bytes| train(&graph, &all, Options::default().storing(bytes)));
    plans.iter().for_each(replay);
    let [single, half] = &plans;
    // Values that fusion left nothing of have no slot.
    for (value, info) in half.values.iter().filter(|(v, _)| half.slots.of[v.index()].is_some()) {
        let want = match info.origin {
            Origin::Output(node) if graph.node(node).name != "fc" => 2,
            _ => 4,
        };
        assert_eq!(half.widths[value.index()], want, "{:?}", info.origin);
    }
    assert!(single.widths.iter().all(|&width| width == 4));
    let saved = |plan: &Plan| plan.stages(&graph, &all).iter().map(|row| row.saved_bytes).sum::<usize>();
    let (a, b) = (saved(single), saved(half));
    assert!(2 * b > a && 20 * b < 11 * a, "statistics are kept as they were: {a} and {b} bytes");
    let [a, b] = [single, half].map(|plan| plan.memory(&graph, 1));
    assert!(b.activations < a.activations);
    assert_eq!((b.weights, b.gradients, b.optimizer), (a.weights, a.gradients, a.optimizer));
}
