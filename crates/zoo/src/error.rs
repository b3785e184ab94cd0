//! What can be wrong with a model specification or with weights for it.

use defrost_graph::GraphError;

use crate::{Arch, Geometry, LoadReport};

/// What is wrong with a model specification, or with weights for a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ZooError {
    /// A name that nothing has.
    #[error("there is no {what} `{name}`{} {}", did_you_mean(nearest), choices.join(", "))]
    Unknown {
        /// What was looked for, as in `model`.
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The nearest name there is, if one is near.
        nearest: Option<String>,
        /// All names there are.
        choices: Vec<String>,
    },
    /// An image smaller than the network's total stride.
    #[error("{arch} takes images from {least}x{least} up, not {}x{}: use a larger image size", size[0], size[1])]
    ImageTooSmall {
        /// The architecture.
        arch: Arch,
        /// Rows and columns asked for.
        size: [usize; 2],
        /// The fewest rows and columns that work.
        least: usize,
    },
    /// A number that has no meaning where it stands.
    #[error("{what} must be {rule}, not {got}")]
    OutOfRange {
        /// What it is for, as in `the number of classes`.
        what: &'static str,
        /// What it must be, as in `at least 1`.
        rule: &'static str,
        /// What it is.
        got: String,
    },
    /// A width multiplier for a network that has none.
    #[error("{arch} has no width multiplier (got {width}); mobilenet_v2 has")]
    NoWidth {
        /// The architecture.
        arch: Arch,
        /// The multiplier asked for.
        width: f32,
    },
    /// A framework's geometry for a network that this framework does not publish.
    #[error("{arch} has no {geometry} geometry: use geometry `torch`")]
    NoGeometry {
        /// The architecture.
        arch: Arch,
        /// The geometry asked for.
        geometry: Geometry,
    },
    /// A head that cannot be read, as in `pooled:many`.
    #[error("`{given}` is no head: {reason} (examples: `linear`, `pooled:512`, `flattened:256,128:0.3`)")]
    BadHead {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The graph did not come together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A tensor with NaN or infinite values.
    #[error(
        "tensor `{name}` holds values that are not finite (first at flat index {at}): the file is damaged"
    )]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// The first such value's place in row-major order.
        at: usize,
    },
    /// A first convolution whose weights have not four axes.
    #[error("the first convolution's weights have shape {shape:?}, not [out, in, rows, columns]")]
    NoStem {
        /// The weights' shape.
        shape: Vec<usize>,
    },
    /// The same tensor twice.
    #[error("the weights hold `{name}` twice")]
    DuplicateTensor {
        /// The tensor's name.
        name: String,
    },
    /// Tensors that do not fit the network.
    #[error("{}", describe_misfit(model, report, fits.as_deref(), *strict))]
    DoesNotFit {
        /// The network's name.
        model: String,
        /// What fits and what does not.
        report: Box<LoadReport>,
        /// The model that these tensors belong to, if it is one of the zoo's.
        fits: Option<String>,
        /// Whether a new head and what is left over were errors.
        strict: bool,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or("; there is".to_owned(), |n| format!("; did you mean `{n}`? There is"))
}

/// How many names of each sort a message lists.
const SHOWN: usize = 3;

fn describe_misfit(model: &str, report: &LoadReport, fits: Option<&str>, strict: bool) -> String {
    let LoadReport { matched, missing, surplus, mismatched, reinitialised, dropped, .. } = report;
    let mut text = format!("the weights do not fit {model} ({} tensors do)", matched.len());
    let mut list = |title: &str, all: usize, items: Vec<String>| {
        if all > 0 {
            let more = all - items.len();
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            text += &format!("\n  {title}: {}{more}", items.join(", "));
        }
    };
    let shapes =
        mismatched.iter().take(SHOWN).map(|m| format!("`{}` is {:?}, must be {:?}", m.name, m.got, m.want));
    list("of another shape", mismatched.len(), shapes.collect());
    let quoted = |names: &[String]| names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
    list("missing", missing.len(), quoted(missing));
    if strict {
        list("re-initialised", reinitialised.len(), quoted(reinitialised));
        list("of another head", dropped.len(), quoted(dropped));
    }
    list("not in the network", surplus.len(), quoted(surplus));
    if let Some(fits) = fits {
        text += &format!("\n  these are weights of {fits}");
    }
    text
}

/// The nearest of `choices` to `name`, if one is near enough to be meant; case and `-`/`_` do not count.
pub(crate) fn nearest<'a>(name: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let plain = |s: &str| s.to_lowercase().replace(['-', '_', ' '], "");
    let name = plain(name);
    choices
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&name, &plain(c)), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c.to_owned())
}
