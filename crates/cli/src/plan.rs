//! `defrost plan`: the table people print before a run.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use defrost::graph::{Graph, Marking};
use defrost::plan::{Memory, Plan, Purpose, StageRow};
use defrost::policy::Phase;
use defrost::train::{device_loss, passes, rule};
use defrost::{FineTune, Model};

use crate::args;
use crate::format::{bytes, flops, thousands};

pub(crate) fn run(args: &args::Plan) -> anyhow::Result<ExitCode> {
    let recipe = args.recipe.resolve()?;
    let (model, phases, batch) = match &args.data {
        Some(data) => {
            let mut fine_tune = FineTune::on(data).recipe(recipe.clone());
            fine_tune.images.clone_from(&args.table.images);
            let prepared = args.recipe.prepare(fine_tune, args.json)?;
            let batch = recipe.batch_size.min(prepared.splits.train.len());
            (prepared.model, prepared.phases, batch)
        }
        None => {
            args.recipe.located(recipe.check().map_err(Into::into))?;
            crate::pull::for_recipe(&recipe, args.json)?;
            let model = args.recipe.located(Model::from_recipe(&recipe, args.classes.unwrap_or(2)))?;
            let phases = args.recipe.located(recipe.resolve(&model.graph).map_err(Into::into))?;
            (model, phases, recipe.batch_size)
        }
    };
    let mut out = std::io::stdout().lock();
    let mut json = Vec::new();
    for (i, phase) in phases.iter().enumerate() {
        let graph = &model.graph;
        let (marking, loss) = (&phase.marking, device_loss(&recipe.loss)?);
        let room = defrost::memory::room(defrost::exec::Room::Host);
        let options = passes(
            &recipe,
            graph,
            (phase, marking),
            batch,
            defrost::exec::Options::default().applying(true).cutting(true),
            room,
        )?;
        let plan = Plan::new(graph, marking, batch, Purpose::Train(loss), options)?;
        let rows = plan.stages(graph, &phase.marking);
        let memory = plan.memory(graph, rule(&phase.optimizer, None)?.state());
        if args.json {
            json.push(as_json(phase, &plan, graph, &rows, memory));
            continue;
        }
        writeln!(out, "phase {}  {}, {} epochs, batches of {batch}\n", i + 1, phase.name, phase.epochs)?;
        writeln!(out, "{}", table(&rows, phase, graph, &phase.marking))?;
        writeln!(out, "{}", below(&plan, graph, memory))?;
        if args.calls {
            writeln!(out, "{plan}")?;
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&json)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rates of a stage's groups, as `2.0e-5` or `2.0e-5 … 1.0e-3`; `-` where nothing trains.
fn rates(stage: usize, phase: &Phase, graph: &Graph, marking: &Marking) -> String {
    let trains = |g: &&defrost::policy::Group| {
        g.params.iter().any(|&p| graph.stage_of(p) == stage && marking.params.trains(p))
    };
    let mut found: Vec<_> = phase.groups.iter().filter(trains).map(|g| g.lr).collect();
    found.sort_by(f64::total_cmp);
    found.dedup();
    match found.as_slice() {
        [] => "-".into(),
        [one] => format!("{one:.1e}"),
        [low, .., high] => format!("{low:.1e} … {high:.1e}"),
    }
}

fn table(rows: &[StageRow], phase: &Phase, graph: &Graph, marking: &Marking) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|r| r.stage.len()).max().unwrap_or(5).max(5);
    let _ = writeln!(
        text,
        "  {:<width$}  {:>11}  {:<8}  {:<12}  {:>9}  {:>11}  {:>11}  {:>9}",
        "stage", "parameters", "trains", "batch norm", "rate", "forward", "backward", "saved"
    );
    for (stage, row) in rows.iter().enumerate() {
        let trains = match (row.trained, row.params) {
            (0, _) if row.in_prefix => "frozen",
            (0, _) => "no",
            (a, b) if a == b => "yes",
            _ => "partly",
        };
        let norm: Vec<_> = row.bn_modes.iter().map(ToString::to_string).collect();
        let none_or = |n: u64, s: String| if n == 0 { "-".into() } else { s };
        let _ = writeln!(
            text,
            "  {:<width$}  {:>11}  {:<8}  {:<12}  {:>9}  {:>11}  {:>11}  {:>9}",
            row.stage,
            thousands(row.params),
            trains,
            if norm.is_empty() { "-".into() } else { norm.join(", ") },
            rates(stage, phase, graph, marking),
            none_or(row.forward_flops, flops(row.forward_flops)),
            none_or(row.backward_flops, flops(row.backward_flops)),
            none_or(row.saved_bytes as u64, bytes(row.saved_bytes)),
        );
    }
    text
}

fn below(plan: &Plan, graph: &Graph, memory: Memory) -> String {
    let (forward, backward) = plan.flops();
    let trained: usize = plan.trained.iter().map(|&id| graph.param(id).len()).sum();
    let all: usize = graph.params().iter().filter(|p| p.kind.is_trainable()).map(|p| p.len()).sum();
    let cut = match graph.node(plan.cut).name.as_str() {
        "input" => "no prefix: every step runs the whole network".into(),
        name => format!("frozen up to `{name}`, which is run forward only"),
    };
    let front = plan.front.as_ref().map(|front| {
        let (name, each) = (&graph.node(front.node).name, front.plan.batch);
        format!("  front       up to `{name}`, {each} of {} pictures at a time\n", plan.batch)
    });
    format!(
        "  trains      {} of {} parameters; {cut}\n  a step      {} forward, {} backward\n  memory      {} at its peak: weights {}, gradients {}, optimizer {}, activations {}{}\n{}",
        thousands(trained),
        thousands(all),
        flops(forward),
        flops(backward),
        bytes(memory.total()),
        bytes(memory.weights),
        bytes(memory.gradients),
        bytes(memory.optimizer),
        bytes(memory.activations),
        if plan.recomputes() { " (computed again in the backward pass)" } else { "" },
        front.unwrap_or_default(),
    )
}

fn as_json(
    phase: &Phase,
    plan: &Plan,
    graph: &Graph,
    rows: &[StageRow],
    memory: Memory,
) -> serde_json::Value {
    let (forward, backward) = plan.flops();
    let stages: Vec<_> = rows
        .iter()
        .map(|r| {
            serde_json::json!({
                "stage": r.stage, "parameters": r.params, "trained": r.trained, "in_prefix": r.in_prefix,
                "bn_modes": r.bn_modes.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "forward_flops": r.forward_flops, "backward_flops": r.backward_flops, "saved_bytes": r.saved_bytes,
            })
        })
        .collect();
    serde_json::json!({
        "phase": phase.name, "epochs": phase.epochs, "batch": plan.batch, "cut": graph.node(plan.cut).name,
        "stages": stages, "forward_flops": forward, "backward_flops": backward,
        "peak_bytes": memory.total(), "weight_bytes": memory.weights, "gradient_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer, "activation_bytes": memory.activations,
        "front": plan.front.as_ref().map(|front| {
            serde_json::json!({ "until": graph.node(front.node).name, "pictures": front.plan.batch })
        }),
        "passes": plan.log,
    })
}
