//! What trains, when, and at what rate.
//!
//! **The key decision: a recipe is data, and it is resolved wholly against a graph before anything runs.** A
//! [`Recipe`] is a TOML file or a value built in Rust; [`Recipe::resolve`] turns it into [`Phase`]s in which nothing is
//! left to decide by name: a [`Marking`](defrost_graph::Marking) of what trains and what each batch normalisation does,
//! parameter groups with their rates, an optimizer, a schedule as a pure function of time, and for every thaw that may
//! happen within a phase the marking and the groups it would lead to. So everything that can be wrong with a recipe (a
//! selector that matches nothing, a schedule longer than its phase) is found before the first image is read, every
//! decision can be printed, and a resumed run finds the same phases by resolving the same recipe again: only the small
//! state machines ([`Stopper`], [`Controller`]) have state to save.
//!
//! Formulas and defaults are those of the tool whose name a feature carries (fastai's one-cycle, timm's layer decay);
//! each item says which.
//!
//! ```
//! use defrost_policy::{Optimizer, PhaseSpec, Recipe, Schedule, Sgd};
//!
//! let mut recipe = Recipe::new("mine", "resnet18")
//!     .phase(PhaseSpec::new("head", 3, "head").lr(1e-2).optimizer(Optimizer::Sgd(Sgd::default())))
//!     .phase(PhaseSpec::new("top", 5, ["layer4", "head"]).lr([1e-4, 1e-3]).schedule(Schedule::cosine()));
//! recipe.set("phase.top.epochs", "8").unwrap();
//! assert_eq!(Recipe::from_toml(&recipe.to_toml()).unwrap(), recipe);
//!
//! let error = recipe.set("phase.top.epoch", "8").unwrap_err();
//! assert_eq!(error.to_string(), "`phase.top.epoch`: there is no key `epoch` here; did you mean `epochs`?");
//! ```

mod after;
mod balance;
mod check;
mod controller;
mod error;
mod finder;
mod keras;
mod layout;
mod lint;
mod loss;
mod lr;
mod matching;
mod model;
mod norm;
mod optimizer;
mod parse;
mod phase;
mod recipe;
mod recipes;
mod resolve;
mod schedule;
mod select;
mod set;
mod short;
mod stop;
mod task;
mod thaw;

pub use balance::Balance;
pub use controller::Controller;
pub use error::{RecipeError, RecipeErrorKind, nearest};
pub use finder::{Curve, Point, Suggested, Suggestion, Sweep};
pub use keras::{KerasLayer, layers as keras_layers};
pub use lint::{Doubt, Facts, Severity, lint};
pub use loss::{ClassWeights, Loss};
pub use lr::Lr;
pub use model::{Head, HeadKind, Model, Weights};
pub use norm::{Norm, NormMode};
pub use optimizer::{Adam, AdamW, Clip, Lamb, Optimizer, RmsProp, Sgd};
pub use parse::line_of;
pub use phase::{Grouping, PhaseSpec, Start, checkpoint_name};
pub use recipe::{Augment, Checkpoints, Data, Ema, Precision, Recipe, Recompute, Retention, Validation};
pub use recipes::recipes;
pub use resolve::{Group, Phase, Step};
pub use schedule::{Rate, Schedule, Warmup};
pub use select::{Selection, Selector};
pub use stop::{EarlyStopping, Metric, Metrics, Mode, Stopper, Verdict};
pub use task::Task;
pub use thaw::{Decision, Plateau, Rollback, Thaw, Unit};

#[cfg(test)]
mod tests;
