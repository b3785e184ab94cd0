//! The learning-rate finder: steps at rising rates, of which nothing is left afterwards but their losses.

use std::sync::Arc;

use defrost_data::{Loader, LoaderOptions};
use defrost_exec::{Images, Session, TrainBatch};
use defrost_policy::{Curve, Phase, Sweep};

use crate::step::{batches_a_step, clip, device_loss, dropout_keys, passes, rates, rule};
use crate::targets::{Rows, Targets, mix};
use crate::{Job, Options, Result};

/// The losses of `phase` of `job` at the rates of `sweep`: each step runs at the next rate, ratios between groups kept,
/// momentum and weight decay as the phase has them. Images are those of the run's own epochs, from the first on.
///
/// The session is left as it was found, to the last bit: weights, running statistics, optimizer state. Nothing else
/// could remember a sweep, since random numbers are keyed. Only what [`Session::begin`] sets is then this phase's.
///
/// Ends early where the loss diverges or `options.stop` is set.
///
/// # Errors
/// The data, the device, and what [`fit`](crate::fit) refuses.
pub fn lr_find(
    session: &mut dyn Session,
    job: &Job,
    phase: &Phase,
    sweep: &Sweep,
    options: &Options<'_>,
) -> Result<Curve> {
    let (params, optimizer) = (session.params()?, session.optimizer()?);
    let curve = steps(session, job, phase, sweep, options);
    // Also after an error: a failed sweep leaves no more trace than one that went well.
    session.set_params(&params)?;
    session.set_optimizer(&optimizer)?;
    curve
}

fn steps(
    session: &mut dyn Session,
    job: &Job,
    phase: &Phase,
    sweep: &Sweep,
    options: &Options<'_>,
) -> Result<Curve> {
    let recipe = &job.recipe;
    let targets = Targets::new(recipe, &job.train)?;
    let (marking, groups) = phase.step(0);
    let each = batches_a_step(phase, recipe.batch_size);
    let batch = recipe.batch_size.min(job.train.len());
    let plan = passes(recipe, &job.graph, (phase, marking), batch, options.plan, options.memory)?;
    let loss = device_loss(&recipe.loss)?;
    session.begin(defrost_exec::Phase { marking: marking.clone(), loss, options: plan })?;
    let loader = LoaderOptions {
        batch: recipe.batch_size.min(job.train.len()).max(1),
        size: job.size(),
        seed: recipe.seed,
        sampling: crate::trainer::sampling(job)?,
        // A smaller batch has another loss for reasons of its own.
        drop_last: true,
        threads: options.loader_threads.unwrap_or(LoaderOptions::train().threads),
        cache_bytes: options.image_cache,
        strict: recipe.data.strict,
        ..LoaderOptions::train()
    };
    let loader = Loader::new(Arc::clone(&job.train), recipe.augment.train.clone(), loader)?;
    let mut batches = (0..).flat_map(|epoch| {
        loader.epoch(epoch).enumerate().map(move |(number, batch)| (epoch as usize, number, batch))
    });
    let mix = mix(recipe);
    let rule = rule(&phase.optimizer, None)?;

    let mut curve = Curve::default();
    while let Some(lr) = curve.next_lr(sweep).filter(|_| !options.stopped()) {
        let (mut parts, mut divisor) = (Vec::with_capacity(each), 0.0);
        for (epoch, number, batch) in batches.by_ref().take(each) {
            let (mut batch, mut rows) = (batch?, Rows::default());
            divisor += targets.batch(&mut batch, &mix, (recipe.seed, epoch, number), &mut rows)?;
            parts.push((epoch, batch, rows));
        }
        let mut loss = 0.0;
        for (epoch, batch, mut rows) in parts.into_iter().filter(|p| p.1.n > 0) {
            rows.divide(divisor);
            let keys = dropout_keys(recipe.seed, epoch, &batch.samples);
            let images = Images::Pixels(&batch.pixels, &job.pixels);
            let (targets, weights) = (&rows.targets, &rows.weights);
            let input = TrainBatch { n: batch.n, images, targets, weights, keys: &keys };
            loss += session.forward_backward(&input)?.loss;
        }
        curve.push(sweep, loss);
        if !loss.is_finite() {
            break;
        }
        session.reduce()?;
        if let Some(limit) = phase.clip {
            session.clip(clip(limit)?)?;
        }
        session.apply(rule, &rates(marking, groups, lr / phase.peak_lr()))?;
    }
    Ok(curve)
}
