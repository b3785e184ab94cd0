//! Doubts about a recipe before it runs: what is legal and mostly a mistake.
//!
//! Every rule is a pure function of the recipe, its phases and what is known of the data; none looks at a file.

use defrost_graph::{BnMode, Graph, ParamId};

use crate::{Balance, ClassWeights, Metric, NormMode, Optimizer, Phase, Recipe};

/// What is known of the data and the weights before a run. Lists that are empty and values that are `None` are not judged.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Facts {
    /// Names of classes.
    pub classes: Vec<String>,
    /// Training images of each class.
    pub train: Vec<usize>,
    /// Validation images of each class.
    pub val: Vec<usize>,
    /// Images that are in both parts by their content, as pairs of paths (training, validation).
    pub shared: Vec<(String, String)>,
    /// Whether the body starts from published weights.
    pub pretrained: bool,
    /// Height and width that the weights were trained at.
    pub trained_size: Option<usize>,
    /// How the weights want images to be prepared, and how they will be; in words, equal if the same.
    pub preprocessing: Option<(String, String)>,
}

/// How much a doubt matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably a mistake.
    Warning,
}

/// A doubt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Doubt {
    /// The rule's name.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is doubtful and why, in one line.
    pub message: String,
    /// What to set instead, as in `data.balance=true`.
    pub set: Option<String>,
}

impl Doubt {
    fn new(rule: &'static str, severity: Severity, message: String) -> Self {
        Self { rule, severity, message, set: None }
    }

    /// A warning of a rule of that name.
    pub fn warning(rule: &'static str, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Warning, message.into())
    }

    fn set(self, set: impl Into<String>) -> Self {
        Self { set: Some(set.into()), ..self }
    }
}

/// Everything a rule may look at.
struct Case<'c> {
    recipe: &'c Recipe,
    phases: &'c [Phase],
    graph: &'c Graph,
    facts: &'c Facts,
}

type Rule = fn(&Case<'_>, &mut Vec<Doubt>);

const RULES: [Rule; 14] = [
    preprocessing,
    image_size,
    random_head,
    frozen_decay,
    small_batch,
    slow_statistics,
    drifting,
    shared_images,
    missing_classes,
    imbalance,
    few_images,
    selectors,
    zero_rates,
    never,
];

/// All doubts about a recipe, warnings first.
pub fn lint(recipe: &Recipe, phases: &[Phase], graph: &Graph, facts: &Facts) -> Vec<Doubt> {
    let case = Case { recipe, phases, graph, facts };
    let mut doubts = Vec::new();
    RULES.iter().for_each(|rule| rule(&case, &mut doubts));
    doubts.sort_by_key(|d| std::cmp::Reverse(d.severity));
    doubts
}

fn preprocessing(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    if let Some((wanted, used)) = case.facts.preprocessing.as_ref().filter(|(w, u)| w != u) {
        let message =
            format!("the weights were trained on images prepared as {wanted}; these will be {used}");
        doubts.push(Doubt::warning("preprocessing", message));
    }
}

fn image_size(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let size = case.recipe.data.image_size;
    let Some(trained) = case.facts.trained_size else { return };
    if size * 2 < trained || size > trained * 2 {
        let message = format!(
            "images of {size} pixels show objects at another scale than the {trained} pixels the weights were trained at"
        );
        doubts.push(Doubt::warning("image-size", message).set(format!("data.image_size={trained}")));
    }
}

/// Rates above which the gradients of a random head are taken to harm a body.
const fn harmful(optimizer: &Optimizer) -> f64 {
    match optimizer {
        Optimizer::Sgd(_) => 1e-2,
        _ => 1e-4,
    }
}

fn random_head(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    if !case.facts.pretrained {
        return;
    }
    let is_head = |id: ParamId| case.graph.stages()[case.graph.stage_of(id)].head;
    for (i, phase) in case.phases.iter().enumerate() {
        let trains = |id: &ParamId| phase.marking.params.trains(*id);
        let in_body = |id: &ParamId| trains(id) && !is_head(*id) && !case.graph.param(*id).kind.is_norm();
        let body = phase.groups.iter().filter(|g| g.params.iter().any(in_body)).map(|g| g.lr);
        let rate = body.fold(0.0, f64::max) * phase.rate(0.0, 0).factor;
        if rate > harmful(&phase.optimizer) {
            let message = format!(
                "phase `{}` trains the body at {rate:.1e} from its first step while the head is still random, whose \
                 gradients undo what the body knows; train the head alone first, or let the rate rise",
                phase.name
            );
            let set = format!("phase.{}.warmup={{ epochs = 1.0, start = 0.01 }}", i + 1);
            doubts.push(Doubt::warning("random-head", message).set(set));
        }
        // From here on the head is no longer random.
        if phase.marking.params.iter().any(is_head) {
            return;
        }
    }
}

fn frozen_decay(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for phase in case.phases {
        let frozen = |id: &&ParamId| !phase.marking.params.trains(**id);
        let decayed = phase.groups.iter().filter(|g| g.weight_decay > 0.0);
        let count = decayed.flat_map(|g| &g.params).filter(frozen).count();
        let never = phase.thaws.last().is_none_or(|s| s.marking.params == phase.marking.params);
        if count > 0 && never {
            let message = format!(
                "weight decay {} in phase `{}` does not reach its {count} frozen weights: what is frozen stays as it is",
                phase.optimizer.weight_decay(),
                phase.name
            );
            doubts.push(Doubt::new("frozen-decay", Severity::Note, message));
        }
    }
}

/// Whether a normalisation is in a mode of that sort at any time of the phase.
fn norms(case: &Case<'_>, phase: &Phase, sort: impl Fn(BnMode) -> bool) -> bool {
    (0..phase.steps()).any(|step| {
        let marking = phase.step(step).0;
        case.graph.node_ids().any(|node| marking.bn_mode(case.graph, node).is_some_and(&sort))
    })
}

/// Below so many images batch statistics are mostly noise.
const SMALL: usize = 8;

fn small_batch(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let batch = case.recipe.batch_size;
    let last = match case.facts.train.iter().sum::<usize>() {
        0 => 0,
        images => images % batch,
    };
    for (i, phase) in case.phases.iter().enumerate() {
        if !norms(case, phase, |mode| !matches!(mode, BnMode::Frozen | BnMode::AffineOnly)) {
            continue;
        }
        if batch < SMALL {
            let message = format!(
                "phase `{}` normalises by the statistics of batches of {batch}, which are mostly noise below {SMALL}",
                phase.name
            );
            let set = format!("phase.{}.norm=affine_only", i + 1);
            doubts.push(Doubt::warning("small-batch", message).set(set));
        } else if (1..SMALL.min(4)).contains(&last) && !case.recipe.data.drop_last {
            let message = format!(
                "the last batch of every epoch of phase `{}` has {last} image{}, and normalises by its statistics",
                phase.name,
                if last == 1 { "" } else { "s" }
            );
            doubts.push(Doubt::warning("small-batch", message).set("data.drop_last=true"));
        }
    }
}

/// The part of a running statistic that may still be what it was before the run.
const STALE: f64 = 0.1;

fn slow_statistics(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let (images, batch) = (case.facts.train.iter().sum::<usize>(), case.recipe.batch_size);
    let an_epoch = if case.recipe.data.drop_last { images / batch } else { images.div_ceil(batch) };
    let updates = |p: &Phase| norms(case, p, |mode| matches!(mode, BnMode::Train | BnMode::Drifting));
    let updating: Vec<_> = (1..).zip(case.phases).filter(|(_, p)| updates(p)).collect();
    let steps: usize = updating.iter().map(|(_, p)| p.epochs * an_epoch).sum();
    let momentum = case.recipe.model.norm_momentum;
    let left = (1.0 - momentum).powf(steps as f64);
    let Some((last, _)) = updating.last().filter(|_| steps > 0 && left > STALE) else { return };
    let message = format!(
        "running statistics take in {momentum} of a batch, so after the {steps} steps that update them {:.0} % of them are \
         still from before the run, and evaluation uses them",
        100.0 * left
    );
    let doubt = Doubt::warning("slow-statistics", message);
    doubts.push(match momentum < 0.1 {
        true => doubt.set("model.norm_momentum=0.1"),
        false => doubt.set(format!("phase.{last}.norm=affine_only")),
    });
}

fn drifting(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for (i, (phase, spec)) in case.phases.iter().zip(&case.recipe.phases).enumerate() {
        let drifts = |n| phase.marking.bn_mode(case.graph, n) == Some(BnMode::Drifting);
        if spec.norm.default == NormMode::Drifting || case.graph.node_ids().any(drifts) {
            let message = format!(
                "running statistics of frozen normalisations drift in phase `{}`: frozen stages will not stay as they are",
                phase.name
            );
            doubts.push(Doubt::warning("drifting", message).set(format!("phase.{}.norm=auto", i + 1)));
        }
    }
}

fn shared_images(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let shared = &case.facts.shared;
    if let Some((train, val)) = shared.first() {
        let message = format!(
            "{} image{} in training and in validation, as {train} and {val}: validation will look better than it is",
            shared.len(),
            if shared.len() == 1 { " is" } else { "s are" }
        );
        doubts.push(Doubt::warning("shared-images", message));
    }
}

fn missing_classes(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for (counts, part) in [(&case.facts.train, "training"), (&case.facts.val, "validation")] {
        let names =
            case.facts.classes.iter().zip(counts).filter(|(_, n)| **n == 0).map(|(name, _)| name.as_str());
        let names: Vec<_> = names.collect();
        if !names.is_empty() {
            let message = format!("no {part} image of {}", listed(&names));
            doubts.push(Doubt::warning("missing-classes", message));
        }
    }
}

fn imbalance(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let weighted = case.recipe.loss.class_weights().is_some_and(|w| *w != ClassWeights::None);
    let mut sorted = case.facts.train.clone();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    let few = |n: usize| n > 0 && n * 4 <= median;
    let rare = case.facts.classes.iter().zip(&case.facts.train).filter(|(_, n)| few(**n));
    let rare: Vec<_> = rare.map(|(name, n)| format!("{name} ({n})")).collect();
    if !rare.is_empty() && case.recipe.data.balance == Balance::Natural && !weighted {
        let rare: Vec<_> = rare.iter().map(String::as_str).collect();
        let message =
            format!("few training images of {}; half of the classes have {median} or more", listed(&rare));
        doubts.push(Doubt::warning("imbalance", message).set("data.balance=true"));
    }
}

fn few_images(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    let (images, batch) = (case.facts.train.iter().sum::<usize>(), case.recipe.batch_size);
    if images > 0 && images < 4 * batch {
        let message = format!("{images} training images are {} steps an epoch", images.div_ceil(batch));
        let fitting = (images / 8).max(SMALL).next_power_of_two().min(batch);
        doubts.push(Doubt::new("few-images", Severity::Note, message).set(format!("batch_size={fitting}")));
    }
}

fn selectors(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for phase in case.phases {
        let said = phase.warnings.iter().map(|w| format!("phase `{}`: {w}", phase.name));
        doubts.extend(said.map(|message| Doubt::warning("selector", message)));
    }
}

fn zero_rates(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for phase in case.phases {
        let trains = |id: &ParamId| phase.marking.params.trains(*id);
        let zero = phase.groups.iter().filter(|g| g.lr == 0.0 && g.params.iter().any(trains));
        let names: Vec<_> = zero.map(|g| g.name.as_str()).collect();
        if !names.is_empty() {
            let message = format!(
                "a rate of 0 in phase `{}` for {}: frozen it would save the time and the memory too",
                phase.name,
                listed(&names)
            );
            doubts.push(Doubt::warning("zero-rate", message));
        }
    }
}

/// What is asked for and can never happen.
fn never(case: &Case<'_>, doubts: &mut Vec<Doubt>) {
    for phase in case.phases {
        let measured = case.recipe.validation.times(phase.epochs);
        let counted = |m: Metric| if m == Metric::TrainLoss { phase.epochs } else { measured };
        if let Some(rule) = phase.early_stopping.as_ref().filter(|r| r.patience >= counted(r.metric)) {
            let (waits, name) = (rule.patience, &phase.name);
            let message = match counted(rule.metric) {
                n if n < phase.epochs => format!(
                    "early stopping waits {waits} epochs that are measured, and phase `{name}` has {n} (`validation.every`)"
                ),
                _ => format!("early stopping waits {waits} epochs, longer than phase `{name}` is"),
            };
            doubts.push(Doubt::new("never", Severity::Note, message));
        }
        let Some(thaw) = phase.thaw.as_ref().filter(|t| t.every > 0 && t.plateau.is_none()) else { continue };
        let reached = (phase.epochs - 1) / thaw.every + thaw.at.len();
        if reached < phase.thaws.len() {
            let message = format!(
                "phase `{}` ends after {reached} of its {} thaws: a thaw every {} epochs needs {} epochs",
                phase.name,
                phase.thaws.len(),
                thaw.every,
                thaw.every * phase.thaws.len() + 1
            );
            doubts.push(Doubt::new("never", Severity::Note, message));
        }
    }
}

/// `a, b, c and 4 more`.
fn listed(names: &[&str]) -> String {
    match names {
        [most @ .., _, _] if names.len() > 5 => {
            format!("{} and {} more", most[..4.min(most.len())].join(", "), names.len() - 4)
        }
        names => names.join(", "),
    }
}
