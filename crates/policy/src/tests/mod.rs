//! Tests of the crate, by subject.

mod controller;
mod formulas;
mod lint;
mod nets;
mod parse;
mod resolve;
mod schedule;
mod select;

use defrost_graph::Graph;

use crate::{Phase, PhaseSpec, Recipe, RecipeError};

/// One phase resolved.
fn phase(graph: &Graph, spec: PhaseSpec) -> Result<Phase, RecipeError> {
    Recipe::new("test", graph.name()).phase(spec).resolve(graph).map(|mut phases| phases.remove(0))
}

/// The names of what trains.
fn training<'g>(graph: &'g Graph, phase: &Phase) -> Vec<&'g str> {
    phase.marking.params.iter().map(|id| graph.param(id).name.as_str()).collect()
}
