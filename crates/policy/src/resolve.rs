//! From a recipe and a graph to phases in which nothing is left to decide by name.

use std::collections::BTreeMap;

use defrost_graph::{Graph, Marking, ParamId, ParamMask, Statistics};

use crate::matching::{Bits, Units, one, select};
use crate::thaw::Unit;
use crate::{
    Clip, EarlyStopping, Grouping, Lr, Norm, NormMode, Optimizer, PhaseSpec, Rate, Recipe, RecipeError,
    RecipeErrorKind, Schedule, Selector, Start, Sweep, Thaw, Warmup,
};

/// Parameters that share a rate. Groups exist from the first step on, whether their parameters train yet or not.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Group {
    /// The unit's name (a stage's, say), with a remark where a unit has several groups.
    pub name: String,
    /// Its parameters, in the table's order; which of them train is in the marking.
    pub params: Vec<ParamId>,
    /// The greatest rate; the schedule's factor multiplies it.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// What holds from a thaw on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// What is new in this step, as in `features.17`.
    pub name: String,
    /// What trains and what batch normalisations do.
    pub marking: Marking,
    /// All parameter groups.
    pub groups: Vec<Group>,
}

/// A phase of a recipe, resolved against a graph.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Passes over the training part.
    pub epochs: usize,
    /// What trains at the start, and what batch normalisations do.
    pub marking: Marking,
    /// All parameter groups at the start, from the input to the output.
    pub groups: Vec<Group>,
    /// What thaws lead to, in their order: empty for a phase without thaws.
    pub thaws: Vec<Step>,
    /// How gradients become steps.
    pub optimizer: Optimizer,
    /// Whether the optimizer's state of the phase before is kept.
    pub keep_state: bool,
    /// How rates move; [`Phase::rate`] has the warm-up in front of it.
    pub schedule: Schedule,
    /// A rise in front of the schedule.
    pub warmup: Option<Warmup>,
    /// Limits on gradients.
    pub clip: Option<Clip>,
    /// Samples whose gradients make one step; 0: each batch is a step.
    pub accumulate: usize,
    /// When thaws happen; [`Controller`](crate::Controller) follows it.
    pub thaw: Option<Thaw>,
    /// When the phase ends early.
    pub early_stopping: Option<EarlyStopping>,
    /// Which weights it starts from.
    pub start: Start,
    /// A sweep of the learning-rate finder before it.
    pub find_lr: Option<Sweep>,
    /// The name of a checkpoint that is written when it ends.
    pub save: Option<String>,
    /// What a person should know about the selection, a line each.
    pub warnings: Vec<String>,
}

impl Phase {
    /// The rate at `position` (0 to 1: batches done of all batches of the phase) in `epoch` (from 0, of the phase).
    pub fn rate(&self, position: f64, epoch: usize) -> Rate {
        match &self.warmup {
            Some(warmup) => warmup.at(&self.schedule, position, epoch, self.epochs),
            None => self.schedule.at(position, epoch),
        }
    }

    /// The marking and the groups after `step` thaws; the last ones for a step that does not exist.
    pub fn step(&self, step: usize) -> (&Marking, &[Group]) {
        match step.checked_sub(1).and_then(|i| self.thaws.get(i).or(self.thaws.last())) {
            Some(step) => (&step.marking, &step.groups),
            None => (&self.marking, &self.groups),
        }
    }

    /// The greatest rate of what trains at the start: the one a [`Sweep`] is about.
    pub fn peak_lr(&self) -> f64 {
        let trains = |g: &&Group| g.params.iter().any(|id| self.marking.params.trains(*id));
        self.groups.iter().filter(trains).map(|g| g.lr).fold(0.0, f64::max)
    }

    /// Multiplies all rates, so that ratios between groups stay.
    pub fn scale_rates(&mut self, factor: f64) {
        let thaws = self.thaws.iter_mut().flat_map(|s| &mut s.groups);
        self.groups.iter_mut().chain(thaws).for_each(|g| g.lr *= factor);
    }

    /// Steps there are, the start counted.
    pub fn steps(&self) -> usize {
        1 + self.thaws.len()
    }
}

impl Recipe {
    /// What the recipe means for `graph`, phase by phase.
    ///
    /// # Errors
    /// What [`Recipe::check`] finds; selectors that match nothing or ask for more than there is; phases in which nothing
    /// trains. [`RecipeError::locate`] adds the line where the text is at hand.
    pub fn resolve(&self, graph: &Graph) -> Result<Vec<Phase>, RecipeError> {
        self.check()?;
        let phases = self.phases.iter().enumerate();
        phases.map(|(i, spec)| resolve(spec, &format!("phase.{}", i + 1), self, graph)).collect()
    }
}

fn resolve(spec: &PhaseSpec, key: &str, recipe: &Recipe, graph: &Graph) -> Result<Phase, RecipeError> {
    let at = |part: &str, kind: RecipeErrorKind| RecipeError::new(format!("{key}.{part}"), kind);
    let mut warnings = Vec::new();
    let units = units(graph, &spec.groups, &spec.lr, &mut warnings).map_err(|e| at("groups", e))?;
    let rates = rates(graph, &units, spec, &mut warnings).map_err(|e| at("lr", e))?;
    let norms = norms(graph, &units, &spec.norm, &mut warnings).map_err(|e| at("norm", e))?;

    let mut bits = select(graph, &units, &spec.train, &mut warnings).map_err(|e| at("train", e))?;
    let marking = marking(graph, &bits, &norms);
    if marking.params.count() == 0 {
        return Err(at("train", RecipeErrorKind::NothingTrains { phase: spec.name.clone() }));
    }
    let mut thaws = Vec::new();
    if let Some(thaw) = &spec.thaw {
        for (i, (name, more)) in additions(graph, &units, thaw, &bits, &mut warnings)
            .map_err(|(part, e)| at(&format!("thaw.{part}"), e))?
            .into_iter()
            .enumerate()
        {
            bits.iter_mut().zip(more).for_each(|(bit, new)| *bit |= new);
            let mut groups = rates.clone();
            groups.iter_mut().for_each(|g| g.lr *= thaw.lr_factor.powf((i + 1) as f64));
            thaws.push(Step { name, marking: self::marking(graph, &bits, &norms), groups });
        }
        let asked = thaw.at.len();
        if asked > thaws.len() {
            warnings.push(format!(
                "{asked} thaws are asked for, but only {} parts are left to thaw",
                thaws.len()
            ));
        }
    }
    warnings.dedup();
    Ok(Phase {
        name: spec.name.clone(),
        epochs: spec.epochs,
        marking,
        groups: rates,
        thaws,
        optimizer: spec.optimizer.clone(),
        keep_state: spec.keep_state,
        schedule: spec.schedule.clone(),
        warmup: spec.warmup,
        clip: spec.clip,
        accumulate: spec.accumulate,
        thaw: spec.thaw.clone(),
        early_stopping: recipe.early_stopping.clone(),
        start: spec.start.clone(),
        find_lr: spec.find_lr.clone(),
        save: spec.save.clone(),
        warnings,
    })
}

/// The parameter groups by place. Layer decay goes by blocks where nothing else is said.
fn units(
    graph: &Graph,
    grouping: &Grouping,
    lr: &Lr,
    warnings: &mut Vec<String>,
) -> Result<Units, RecipeErrorKind> {
    let by_block = matches!((grouping, lr), (Grouping::Stage, Lr::LayerDecay { .. }));
    let place = |id: ParamId| {
        let block = graph.param(id).block;
        let stage = graph.blocks()[block].stage;
        match grouping {
            Grouping::Whole => usize::from(graph.stages()[stage].head),
            Grouping::Stage if !by_block => stage,
            _ => block,
        }
    };
    let name = |place: usize| match grouping {
        Grouping::Whole => ["body", "head"][place].to_owned(),
        Grouping::Stage if !by_block => graph.stages()[place].name.clone(),
        _ => graph.blocks()[place].name.clone(),
    };
    let trainable = || graph.param_ids().filter(|id| graph.param(*id).kind.is_trainable());
    let Grouping::Split(parts) = grouping else {
        let mut places = BTreeMap::<usize, Vec<ParamId>>::new();
        trainable().for_each(|id| places.entry(place(id)).or_default().push(id));
        return Ok(places.into_iter().map(|(at, params)| (name(at), params)).collect());
    };
    let mut taken = vec![false; graph.params().len()];
    let mut units = Units::new();
    for part in parts {
        let bits = select(graph, &Units::new(), part, warnings)?;
        let new: Vec<_> = trainable().filter(|id| bits[id.index()] && !taken[id.index()]).collect();
        new.iter().for_each(|id| taken[id.index()] = true);
        units.push((part.to_string(), new));
    }
    match trainable().find(|id| !taken[id.index()]) {
        Some(id) => Err(RecipeErrorKind::Ungrouped { param: graph.param(id).name.clone() }),
        None => Ok(units),
    }
}

/// All groups with their rates and decay.
fn rates(
    graph: &Graph,
    units: &Units,
    spec: &PhaseSpec,
    warnings: &mut Vec<String>,
) -> Result<Vec<Group>, RecipeErrorKind> {
    let named = match &spec.lr {
        Lr::ByName { default, rates } => Some((*default, by_name(graph, units, rates, warnings)?)),
        _ => None,
    };
    let mut groups = Vec::<Group>::new();
    for (i, (name, params)) in units.iter().enumerate() {
        let first = groups.len();
        for &id in params {
            let kind = graph.param(id).kind;
            let (base, remark) = match (&named, &spec.lr) {
                (Some((default, found)), _) => match found[id.index()] {
                    Some((selector, rate)) => (*rate, Some(selector.as_str())),
                    None => (*default, None),
                },
                (None, lr) => (by_place(lr, i, units.len()), None),
            };
            let plain = !kind.is_norm() && kind != defrost_graph::ParamKind::Bias;
            let multiplier = match kind {
                _ if kind.is_norm() => spec.norm_lr,
                _ if plain => 1.0,
                _ => spec.bias_lr,
            };
            let decayed = plain || spec.optimizer.decay_norm_and_bias();
            let weight_decay = if decayed { spec.optimizer.weight_decay() } else { 0.0 };
            let lr = base * multiplier;
            match groups[first..].iter_mut().find(|g| g.lr == lr && g.weight_decay == weight_decay) {
                Some(group) => group.params.push(id),
                None => {
                    let kind = match kind {
                        _ if kind.is_norm() => Some("norm"),
                        _ if plain => None,
                        _ => Some("bias"),
                    };
                    let remark = remark.filter(|r| r != name).or(kind);
                    let name = remark.map_or_else(|| name.clone(), |r| format!("{name} ({r})"));
                    groups.push(Group { name, params: vec![id], lr, weight_decay });
                }
            }
        }
    }
    Ok(groups)
}

/// The rate of unit `i` of `n`.
fn by_place(lr: &Lr, i: usize, n: usize) -> f64 {
    match lr {
        Lr::Uniform(v) => *v,
        Lr::Slice([_, b]) if n < 2 => *b,
        Lr::Slice([a, b]) => a * (b / a).powf(i as f64 / (n - 1) as f64),
        Lr::SliceStop(stop) => {
            if i + 1 == n {
                *stop
            } else {
                stop / 10.0
            }
        }
        Lr::LayerDecay { base, layer_decay, min_scale } => {
            base * layer_decay.powf((n - 1 - i) as f64).max(*min_scale)
        }
        Lr::ByName { default, .. } => *default,
    }
}

/// For each parameter the entry of a table by selector that matches it.
fn by_name<'t, T>(
    graph: &Graph,
    units: &Units,
    table: &'t BTreeMap<String, T>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Option<(&'t String, &'t T)>>, RecipeErrorKind> {
    let mut found: Vec<Option<(&String, &T)>> = vec![None; graph.params().len()];
    for (text, value) in table {
        let bits = one(graph, units, &Selector::from(text.as_str()), warnings)?;
        for id in graph.param_ids().filter(|id| bits.get(id.index()) == Some(&true)) {
            if let Some((first, _)) = found[id.index()] {
                let param = graph.param(id).name.clone();
                return Err(RecipeErrorKind::Ambiguous { first: first.clone(), second: text.clone(), param });
            }
            found[id.index()] = Some((text, value));
        }
    }
    Ok(found)
}

/// The mode of the normalisation that each parameter belongs to.
fn norms(
    graph: &Graph,
    units: &Units,
    norm: &Norm,
    warnings: &mut Vec<String>,
) -> Result<Vec<NormMode>, RecipeErrorKind> {
    let named = by_name(graph, units, &norm.by_name, warnings)?;
    let mode = |id: ParamId| match named[id.index()] {
        Some((_, mode)) => *mode,
        // A head's normalisations are new: frozen they would be no normalisations at all.
        None if graph.stages()[graph.stage_of(id)].head && norm.default != NormMode::TrainBn => {
            NormMode::Auto
        }
        None => norm.default,
    };
    Ok(graph.param_ids().map(mode).collect())
}

fn marking(graph: &Graph, bits: &Bits, norms: &[NormMode]) -> Marking {
    let trains = |id: ParamId| match norms[id.index()] {
        NormMode::Frozen if graph.param(id).kind.is_norm() => false,
        NormMode::TrainBn if graph.param(id).kind.is_norm() => true,
        _ => bits[id.index()],
    };
    let mut marking = Marking::new(graph, ParamMask::of(graph, trains));
    for node in graph.node_ids() {
        let op = &graph.node(node).op;
        let (Some(_), Some(&scale)) = (op.norm(), op.params().first()) else { continue };
        let statistics = match norms[scale.index()] {
            NormMode::Auto => continue,
            NormMode::Frozen | NormMode::AffineOnly => Statistics::Running,
            NormMode::TrainBn | NormMode::Drifting => Statistics::BatchUpdating,
            NormMode::Batch => Statistics::Batch,
        };
        marking.set_statistics(node, statistics);
    }
    marking
}

/// What each thaw adds.
fn additions(
    graph: &Graph,
    units: &Units,
    thaw: &Thaw,
    start: &Bits,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Bits)>, (&'static str, RecipeErrorKind)> {
    if !thaw.steps.is_empty() {
        let step = |s: &crate::Selection| Ok((s.to_string(), select(graph, units, s, warnings)?));
        return thaw.steps.iter().map(step).collect::<Result<_, _>>().map_err(|e| ("steps", e));
    }
    let parts = match thaw.unit {
        Unit::Group => units.clone(),
        Unit::All => vec![("everything".to_owned(), graph.param_ids().collect())],
        unit => {
            let grouping = if unit == Unit::Block { Grouping::Block } else { Grouping::Stage };
            self::units(graph, &grouping, &Lr::Uniform(0.0), warnings).map_err(|e| ("unit", e))?
        }
    };
    let mut steps = Vec::new();
    for (name, params) in parts.into_iter().rev() {
        let frozen = |id: &&ParamId| graph.param(**id).kind.is_trainable() && !start[id.index()];
        if params.iter().filter(frozen).count() > 0 {
            let mut bits = vec![false; graph.params().len()];
            params.iter().filter(frozen).for_each(|id| bits[id.index()] = true);
            steps.push((name, bits));
        }
    }
    Ok(steps)
}
