//! Whole networks: the planner's passes change nothing, and the gradients are gradients.

use std::sync::Arc;

use defrost_graph::{Marking, ParamMask, Statistics};
use defrost_plan::Options;

use crate::networks::{Network, networks};
use crate::plans::run_networks;
use crate::reference::Reference;
use crate::{Oracle, det_f64};

#[test]
fn every_pass_on_every_marking_computes_the_same_in_f64() {
    // What is left is the rounding of weights and results to f32 on their way in and out.
    let report = run_networks(&Arc::new(Oracle), networks(), 1e-6, &[]);
    assert!(report.passed(), "{report}");
    assert!(report.outcomes.len() > 300, "{report}");
}

#[test]
fn the_gradients_of_whole_networks_are_gradients() {
    for network in networks() {
        let batch = network.batch(0, network.n);
        // Every mode of batch normalisation; what other markings compute is compared with these elsewhere.
        let tried = ["everything", "everything, running statistics", "every other"];
        for (name, marking) in network.markings().into_iter().filter(|(name, _)| tried.contains(name)) {
            let mut reference = Reference::new(&network);
            let start = reference.params.clone();
            let step = reference.step(&marking, &batch).unwrap();
            let largest = step.grads.iter().flat_map(|(_, g)| g).fold(0.0_f64, |m, g| m.max(g.abs()));
            // The loss does not depend on what trains, so what it takes to go backward is saved.
            let mut cheap = marking.clone();
            cheap.params = ParamMask::of(&network.graph, |id| id.index() + 1 == network.graph.params().len());
            let mut loss = |params: Vec<Vec<f64>>| {
                reference.params = params;
                reference.step(&cheap, &batch).unwrap().loss
            };
            // Small enough that no activation's kink lies between.
            let h = 1e-6;
            for (id, grad) in &step.grads {
                let places = det_f64(&format!("{name}/{}", id.index()), 2, 0.5, 0.5);
                for at in places.into_iter().map(|u| (u * grad.len() as f64) as usize) {
                    let mut moved = |by: f64| {
                        let mut params = start.clone();
                        params[id.index()][at] += by;
                        loss(params)
                    };
                    let difference = (moved(h) - moved(-h)) / (2.0 * h);
                    let error = (difference - grad[at]).abs() / largest;
                    let param = &network.graph.param(*id).name;
                    assert!(
                        error < 1e-6,
                        "{}, {name}: the gradient of {param}[{at}] is {}, the difference {difference}",
                        network.name,
                        grad[at]
                    );
                }
            }
        }
    }
}

/// Any set of parameters, any mode in any normalisation.
fn arbitrary(network: &Network, i: usize) -> Marking {
    let graph = &network.graph;
    let coin = det_f64(&format!("{}/mask {i}", network.name), graph.params().len(), 0.5, 0.5);
    let share = [0.1, 0.5, 0.8][i % 3];
    let mut marking = Marking::new(graph, ParamMask::of(graph, |id| coin[id.index()] < share));
    let modes = det_f64(&format!("{}/modes {i}", network.name), graph.nodes().len(), 1.5, 1.5);
    for id in graph.node_ids().filter(|&id| graph.node(id).op.norm().is_some()) {
        let modes_of = [Statistics::Running, Statistics::Batch, Statistics::BatchUpdating];
        marking.set_statistics(id, modes_of[modes[id.index()] as usize % 3]);
    }
    marking
}

#[test]
fn any_marking_at_all_computes_the_same_with_all_passes() {
    for network in networks() {
        let batch = network.batch(0, network.n);
        for i in 0..30 {
            let marking = arbitrary(&network, i);
            if marking.params.count() == 0 {
                continue;
            }
            let run = |options: Options| {
                let mut reference = Reference::new(&network);
                reference.options = options;
                let step = reference.step(&marking, &batch).unwrap();
                (step, reference.params)
            };
            let ((raw, raw_params), (step, params)) = (run(Options::raw()), run(Options::default()));
            assert!((raw.loss - step.loss).abs() < 1e-12 * raw.loss, "{} {i}", network.name);
            for ((id, a), (_, b)) in raw.grads.iter().zip(&step.grads) {
                let name = &network.graph.param(*id).name;
                assert!(close(a, b), "{} {i}: the gradient of {name}", network.name);
            }
            for (param, (a, b)) in network.graph.params().iter().zip(raw_params.iter().zip(&params)) {
                assert!(close(a, b), "{} {i}: {}", network.name, param.name);
            }
            // What is computed again is what it was, to the bit, and running statistics take a batch in once.
            for (kept, options) in
                [((&raw, &raw_params), Options::raw()), ((&step, &params), Options::default())]
            {
                let (again, params) = run(options.recomputing());
                assert_eq!((again.loss, &again.grads), (kept.0.loss, &kept.0.grads), "{} {i}", network.name);
                assert_eq!(&params, kept.1, "{} {i}", network.name);
            }
        }
    }
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-10)
}
