//! What can be said of a recipe without a network.

use std::fmt::Display;

use crate::error::nearest;
use crate::phase::save_name;
use crate::{
    Balance, ClassWeights, Clip, HeadKind, Loss, Lr, Metric, Optimizer, PhaseSpec, Recipe, RecipeError,
    RecipeErrorKind, Schedule, Start, Task, Thaw, Warmup,
};

const POSITIVE: &str = "it must be greater than 0";
const NOT_NEGATIVE: &str = "it must not be negative";
const COUNT: &str = "it must be at least 1";
const PART: &str = "it must be at least 0 and less than 1";
const PART_OR_ALL: &str = "it must be from 0 to 1";
const FACTOR: &str = "it must be greater than 0 and at most 1";

type Checked = Result<(), RecipeError>;

impl Recipe {
    /// Checks every value that has a range, and what must fit together within the recipe.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), RecipeError> {
        rule(
            (1..=65_536).contains(&self.batch_size),
            "batch_size",
            self.batch_size,
            "it must be from 1 to 65536",
        )?;
        self.check_metric(self.monitor, "monitor")?;
        self.check_model()?;
        self.check_data()?;
        self.check_loss()?;
        if let Some(stop) = &self.early_stopping {
            rule(not_negative(stop.min_delta), "early_stopping.min_delta", stop.min_delta, NOT_NEGATIVE)?;
            self.check_metric(stop.metric, "early_stopping.metric")?;
        }
        if let Some(ema) = &self.ema {
            rule(part(ema.decay), "ema.decay", ema.decay, PART)?;
            rule(ema.every >= 1, "ema.every", ema.every, COUNT)?;
        }
        if self.phases.is_empty() {
            return Err(RecipeError::new("", RecipeErrorKind::NoPhase));
        }
        for (i, phase) in self.phases.iter().enumerate() {
            let key = format!("phase.{}", i + 1);
            check_phase(phase, &key)?;
            let thaw = phase.thaw.as_ref();
            if let Some(plateau) = thaw.and_then(|t| t.plateau.as_ref()) {
                self.check_metric(plateau.metric, &format!("{key}.thaw.plateau.metric"))?;
            }
            if let Some(rollback) = thaw.and_then(|t| t.rollback.as_ref()) {
                self.check_metric(rollback.metric, &format!("{key}.thaw.rollback.metric"))?;
            }
            if let Schedule::Plateau { metric, .. } = phase.schedule {
                self.check_metric(metric, &format!("{key}.schedule.metric"))?;
            }
            self.check_start(i, &format!("{key}.start"))?;
        }
        Ok(())
    }

    fn check_model(&self) -> Checked {
        let model = &self.model;
        rule(positive(model.width), "model.width", model.width, POSITIVE)?;
        let channels = model.in_channels;
        rule((1..=1024).contains(&channels), "model.in_channels", channels, "it must be from 1 to 1024")?;
        let momentum = model.norm_momentum;
        rule(
            part_or_all(momentum) && momentum > 0.0,
            "model.norm_momentum",
            momentum,
            "it must lie above 0 and at most at 1",
        )?;
        let head = &model.head;
        if let Some(dropout) = head.dropout {
            rule(part(dropout), "model.head.dropout", dropout, PART)?;
        }
        if let Some(units) = head.hidden.iter().find(|u| !(1..=65_536).contains(*u)) {
            rule(false, "model.head.hidden", units, "a layer has from 1 to 65536 units")?;
        }
        let fits = head.kind != HeadKind::Linear || (head.hidden.is_empty() && !head.batch_norm);
        let linear =
            "a linear head has no hidden layers; write `kind = \"pooled\"` or `kind = \"flattened\"`";
        rule(fits, "model.head.kind", "linear", linear)?;
        let fits = head.kind == HeadKind::Pooled || !head.batch_norm;
        rule(fits, "model.head.batch_norm", "true", "only a pooled head has batch normalisation")
    }

    fn check_data(&self) -> Checked {
        let data = &self.data;
        let size = data.image_size;
        rule(
            (32..=8192).contains(&size),
            "data.image_size",
            size,
            "it must be at least 32 and at most 8192 pixels",
        )?;
        let open = data.val_fraction > 0.0 && data.val_fraction < 1.0;
        rule(open, "data.val_fraction", data.val_fraction, "it must be greater than 0 and less than 1")?;
        let drawn = data.balance != Balance::Natural;
        rule(
            !drawn || self.loss.task() == Task::Classification,
            "data.balance",
            "it",
            "only images of one class each can be drawn by class",
        )?;
        if let Balance::Weights(table) = &data.balance {
            for (class, weight) in table {
                rule(not_negative(*weight), &format!("data.balance.{class}"), weight, NOT_NEGATIVE)?;
            }
        }
        let scaled = data.standardize && self.loss.task() != Task::Regression;
        rule(
            !scaled,
            "data.standardize",
            "true",
            "only the numbers of a regression have a mean and a spread",
        )?;
        for (key, megabytes) in
            [("data.cache_memory", data.cache_memory), ("data.cache_file", data.cache_file)]
        {
            let most = "it is in megabytes, of which there are at most 1000000000";
            rule(megabytes <= 1_000_000_000, key, megabytes, most)?;
        }
        let named = data.cache_folder.as_ref().is_none_or(|folder| !folder.is_empty());
        rule(named, "data.cache_folder", "\"\"", "leave it out for the run's own folder")?;
        if let Some(resize) = &data.resize {
            rule(factor(resize.crop), "data.resize.crop", resize.crop, FACTOR)?;
        }
        let augment = &self.augment;
        augment.train.check().map_err(|e| RecipeError::new("augment.train", e))?;
        augment.test_time.check().map_err(|e| RecipeError::new("augment.test_time", e))?;
        rule(not_negative(augment.mixup), "augment.mixup", augment.mixup, NOT_NEGATIVE)?;
        rule(not_negative(augment.cutmix), "augment.cutmix", augment.cutmix, NOT_NEGATIVE)?;
        rule(part_or_all(augment.mix_prob), "augment.mix_prob", augment.mix_prob, PART_OR_ALL)?;
        rule(part_or_all(augment.switch_prob), "augment.switch_prob", augment.switch_prob, PART_OR_ALL)
    }

    fn check_loss(&self) -> Checked {
        match &self.loss {
            Loss::CrossEntropy { label_smoothing, .. } | Loss::BinaryCrossEntropy { label_smoothing } => {
                rule(part(*label_smoothing), "loss.label_smoothing", label_smoothing, PART)?;
            }
            Loss::Focal { gamma, .. } => rule(not_negative(*gamma), "loss.gamma", gamma, NOT_NEGATIVE)?,
            Loss::Huber { delta } => rule(positive(*delta), "loss.delta", delta, POSITIVE)?,
            Loss::MeanSquared {} => {}
        }
        let cut = self.augment.cutmix > 0.0 && self.loss.task() == Task::Regression;
        let value = self.augment.cutmix;
        rule(
            !cut,
            "augment.cutmix",
            value,
            "a piece of another image has no number: mix a regression by `mixup`",
        )?;
        if let Some(ClassWeights::Table(table)) = self.loss.class_weights() {
            for (class, weight) in table {
                rule(not_negative(*weight), &format!("loss.class_weights.{class}"), weight, NOT_NEGATIVE)?;
            }
        }
        Ok(())
    }

    /// Whether a metric means anything for the loss.
    fn check_metric(&self, metric: Metric, key: &str) -> Checked {
        let known = match self.loss.task() {
            Task::Classification => {
                "of one class an image the metrics are accuracy, top5, precision, recall, f1 (these three also with \
                 _weighted), map, auc, loss and train_loss"
            }
            Task::MultiLabel => {
                "of several labels an image the metrics are map, auc, accuracy (every label right), precision, recall, f1 \
                 (these three also with _weighted and _micro), loss and train_loss"
            }
            Task::Regression => "a regression has the metrics mae, rmse, r2, loss and train_loss",
        };
        rule(self.loss.task().metrics().contains(&metric), key, format!("\"{metric}\""), known)
    }

    /// Whether the weights that phase `i` starts from will be there.
    fn check_start(&self, i: usize, key: &str) -> Checked {
        match &self.phases[i].start {
            Start::Last => Ok(()),
            Start::Best { before } => {
                rule(i > 0, key, "\"best\"", "there is no epoch before the first phase")?;
                let kept = *before == 0 || self.checkpoints.every_epoch;
                let rule_text =
                    "weights of epochs before the best are only there with `checkpoints.every_epoch = true`";
                rule(kept, key, format!("\"best-{before}\""), rule_text)
            }
            Start::Named(name) => {
                let saved: Vec<_> = self.phases[..i].iter().filter_map(|p| p.save.as_deref()).collect();
                if saved.contains(&name.as_str()) {
                    return Ok(());
                }
                let nearest = nearest(name, saved.into_iter().chain(["last", "best"]));
                Err(RecipeError::new(key, RecipeErrorKind::NoCheckpoint { name: name.clone(), nearest }))
            }
        }
    }
}

fn check_phase(phase: &PhaseSpec, key: &str) -> Checked {
    let at = |part: &str| format!("{key}.{part}");
    rule((1..=100_000).contains(&phase.epochs), &at("epochs"), phase.epochs, "it must be from 1 to 100000")?;
    for (part, value) in phase.lr.values() {
        let (ok, text) = match &phase.lr {
            Lr::ByName { .. } => (not_negative(value), "a rate must not be negative"),
            _ => (positive(value), "a rate must be greater than 0"),
        };
        rule(ok, &at(&format!("lr{part}")), value, text)?;
    }
    if let Lr::LayerDecay { layer_decay, min_scale, .. } = &phase.lr {
        rule(factor(*layer_decay), &at("lr.layer_decay"), layer_decay, FACTOR)?;
        rule(part_or_all(*min_scale), &at("lr.min_scale"), min_scale, PART_OR_ALL)?;
    }
    rule(not_negative(phase.bias_lr), &at("bias_lr"), phase.bias_lr, NOT_NEGATIVE)?;
    rule(not_negative(phase.norm_lr), &at("norm_lr"), phase.norm_lr, NOT_NEGATIVE)?;
    if let Some(name) = &phase.save
        && let Err(text) = save_name(name)
    {
        rule(false, &at("save"), format!("\"{name}\""), text)?;
    }
    check_optimizer(&phase.optimizer, &at("optimizer"))?;
    check_schedule(&phase.schedule, phase.epochs, &at("schedule"))?;
    if let Some(Warmup { epochs, start }) = phase.warmup {
        rule(positive(epochs), &at("warmup.epochs"), epochs, POSITIVE)?;
        within("the end of the warm-up", epochs.ceil() as usize, phase.epochs, &at("warmup.epochs"))?;
        rule(part_or_all(start), &at("warmup.start"), start, PART_OR_ALL)?;
    }
    match phase.clip {
        Some(Clip::Norm(v)) => rule(positive(v), &at("clip.norm"), v, POSITIVE)?,
        Some(Clip::Value(v)) => rule(positive(v), &at("clip.value"), v, POSITIVE)?,
        None => {}
    }
    if let Some(sweep) = &phase.find_lr {
        rule(positive(sweep.start), &at("find_lr.start"), sweep.start, POSITIVE)?;
        let rises = sweep.end.is_finite() && sweep.end > sweep.start;
        rule(rises, &at("find_lr.end"), sweep.end, "it must be greater than `start`")?;
        let steps = sweep.steps;
        rule((6..=100_000).contains(&steps), &at("find_lr.steps"), steps, "it must be from 6 to 100000")?;
    }
    phase.thaw.as_ref().map_or(Ok(()), |thaw| check_thaw(thaw, phase.epochs, &at("thaw")))
}

fn check_optimizer(optimizer: &Optimizer, key: &str) -> Checked {
    let at = |part: &str| format!("{key}.{part}");
    let decay = optimizer.weight_decay();
    rule(not_negative(decay), &at("weight_decay"), decay, NOT_NEGATIVE)?;
    let moments = |betas: &[f64; 2], eps: f64| {
        for beta in betas {
            rule(part(*beta), &at("betas"), beta, PART)?;
        }
        rule(positive(eps), &at("eps"), eps, POSITIVE)
    };
    match optimizer {
        Optimizer::Sgd(o) => {
            rule(part(o.momentum), &at("momentum"), o.momentum, PART)?;
            let fits = !o.nesterov || o.momentum > 0.0;
            rule(fits, &at("nesterov"), "true", "Nesterov's step needs a momentum greater than 0")
        }
        Optimizer::Adam(o) => moments(&o.betas, o.eps),
        Optimizer::AdamW(o) => moments(&o.betas, o.eps),
        Optimizer::Lamb(o) => {
            rule(not_negative(o.max_grad_norm), &at("max_grad_norm"), o.max_grad_norm, NOT_NEGATIVE)?;
            moments(&o.betas, o.eps)
        }
        Optimizer::RmsProp(o) => {
            rule(part(o.alpha), &at("alpha"), o.alpha, PART)?;
            rule(part(o.momentum), &at("momentum"), o.momentum, PART)?;
            rule(positive(o.eps), &at("eps"), o.eps, POSITIVE)
        }
    }
}

fn check_schedule(schedule: &Schedule, epochs: usize, key: &str) -> Checked {
    let at = |part: &str| format!("{key}.{part}");
    match schedule {
        Schedule::Constant {} => Ok(()),
        Schedule::Step { every, gamma } => {
            rule(*every >= 1, &at("every"), every, COUNT)?;
            within("the first step", *every, epochs, &at("every"))?;
            rule(positive(*gamma), &at("gamma"), gamma, POSITIVE)
        }
        Schedule::MultiStep { at: milestones, gamma } => {
            rising(milestones.iter().copied(), epochs, "a milestone", &at("at"))?;
            rule(positive(*gamma), &at("gamma"), gamma, POSITIVE)
        }
        Schedule::Exponential { gamma } => rule(positive(*gamma), &at("gamma"), gamma, POSITIVE),
        Schedule::Polynomial { power, end } => {
            rule(positive(*power), &at("power"), power, POSITIVE)?;
            rule(part_or_all(*end), &at("end"), end, PART_OR_ALL)
        }
        Schedule::Cosine { end, cycles, mult } => {
            rule(part_or_all(*end), &at("end"), end, PART_OR_ALL)?;
            rule(*cycles >= 1, &at("cycles"), cycles, COUNT)?;
            within("the last cycle", cycles - 1, epochs, &at("cycles"))?;
            rule(positive(*mult), &at("mult"), mult, POSITIVE)
        }
        Schedule::OneCycle { div, div_final, pct_start, momentum } => {
            rule(positive(*div), &at("div"), div, POSITIVE)?;
            rule(positive(*div_final), &at("div_final"), div_final, POSITIVE)?;
            rule(part_or_all(*pct_start), &at("pct_start"), pct_start, PART_OR_ALL)?;
            let fits = matches!(momentum.len(), 0 | 3);
            let listed = format!("{momentum:?}");
            rule(fits, &at("momentum"), &listed, "it must be three values (start, top, end) or none")?;
            rule(
                momentum.iter().all(|m| part(*m)),
                &at("momentum"),
                listed,
                "each must be at least 0 and less than 1",
            )
        }
        Schedule::FlatCosine { flat, div_final } => {
            rule(part_or_all(*flat), &at("flat"), flat, PART_OR_ALL)?;
            rule(positive(*div_final), &at("div_final"), div_final, POSITIVE)
        }
        Schedule::Plateau { factor: by, min_delta, min_factor, .. } => {
            rule(part(*by) && *by > 0.0, &at("factor"), by, "it must be greater than 0 and less than 1")?;
            rule(not_negative(*min_delta), &at("min_delta"), min_delta, NOT_NEGATIVE)?;
            rule(part_or_all(*min_factor), &at("min_factor"), min_factor, PART_OR_ALL)
        }
        Schedule::Table { factors } => {
            rule(!factors.is_empty(), &at("factors"), "[]", "it must have a row [epoch, factor]")?;
            rising(factors.iter().map(|(from, _)| *from), epochs, "a row", &at("factors"))?;
            let bad = factors.iter().find(|(_, f)| !not_negative(*f));
            bad.map_or(Ok(()), |(_, f)| rule(false, &at("factors"), f, NOT_NEGATIVE))
        }
    }
}

fn check_thaw(thaw: &Thaw, epochs: usize, key: &str) -> Checked {
    let at = |part: &str| format!("{key}.{part}");
    let timed = !thaw.at.is_empty() || thaw.every > 0 || thaw.plateau.is_some();
    rule(timed, key, "a thaw at no time", "give `at`, `every` or `plateau`, or several of them")?;
    rising(thaw.at.iter().copied(), epochs, "a thaw", &at("at"))?;
    if let Some(0) = thaw.at.first() {
        rule(false, &at("at"), 0, "what trains from the phase's start belongs into `train`")?;
    }
    if thaw.every > 0 {
        within("the first thaw", thaw.every, epochs, &at("every"))?;
    }
    rule(positive(thaw.lr_factor), &at("lr_factor"), thaw.lr_factor, POSITIVE)?;
    if let Some(plateau) = &thaw.plateau {
        rule(plateau.patience >= 1, &at("plateau.patience"), plateau.patience, COUNT)?;
        rule(not_negative(plateau.min_delta), &at("plateau.min_delta"), plateau.min_delta, NOT_NEGATIVE)?;
    }
    if let Some(rollback) = &thaw.rollback {
        rule(rollback.patience >= 1, &at("rollback.patience"), rollback.patience, COUNT)?;
        rule(not_negative(rollback.tolerance), &at("rollback.tolerance"), rollback.tolerance, NOT_NEGATIVE)?;
    }
    Ok(())
}

fn rule(holds: bool, key: &str, value: impl Display, text: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(RecipeError::range(key, value, text)) }
}

/// Epochs in rising order, all within the phase.
fn rising(values: impl Iterator<Item = usize>, epochs: usize, what: &'static str, key: &str) -> Checked {
    let mut before = None;
    for epoch in values {
        rule(before.is_none_or(|b| b < epoch), key, epoch, "epochs must rise from one to the next")?;
        within(what, epoch, epochs, key)?;
        before = Some(epoch);
    }
    Ok(())
}

fn within(what: &'static str, needs: usize, has: usize, key: &str) -> Checked {
    if needs < has {
        return Ok(());
    }
    Err(RecipeError::new(key, RecipeErrorKind::TooLong { what, needs, has }))
}

fn positive(v: f64) -> bool {
    v.is_finite() && v > 0.0
}

fn not_negative(v: f64) -> bool {
    v.is_finite() && v >= 0.0
}

fn part(v: f64) -> bool {
    (0.0..1.0).contains(&v)
}

fn part_or_all(v: f64) -> bool {
    (0.0..=1.0).contains(&v)
}

fn factor(v: f64) -> bool {
    v > 0.0 && v <= 1.0
}
