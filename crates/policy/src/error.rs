//! What can be wrong with a recipe: where, what, and what was probably meant.

use std::fmt;

/// A fault in a recipe, with the key it is at and, where the text of the recipe is known, the line.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipeError {
    key: String,
    line: Option<usize>,
    kind: RecipeErrorKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeErrorKind {
    /// The text is no TOML.
    #[error("this is not TOML: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// A key that no recipe has.
    #[error("there is no key `{name}` here{}", meant(nearest, known))]
    UnknownKey {
        /// The key as written.
        name: String,
        /// The known key that is most like it.
        nearest: Option<String>,
        /// All keys that could stand here.
        known: Vec<String>,
    },
    /// A word that is none of those that can stand here.
    #[error("`{name}` is none of the words that can stand here{}", meant(nearest, known))]
    UnknownWord {
        /// The word as written.
        name: String,
        /// The known word that is most like it.
        nearest: Option<String>,
        /// All words that could stand here.
        known: Vec<String>,
    },
    /// A key that must be given is missing.
    #[error("the key `{name}` is missing")]
    MissingKey {
        /// The key.
        name: String,
    },
    /// No phase at all.
    #[error("there is no `[[phase]]`: a recipe trains in one phase or more")]
    NoPhase,
    /// A value of the wrong type or form.
    #[error("{message}")]
    Type {
        /// What was found and what was expected.
        message: String,
    },
    /// A value out of its range.
    #[error("{value} is not allowed: {rule}")]
    Range {
        /// The value as written.
        value: String,
        /// What is accepted.
        rule: &'static str,
    },
    /// An operation of the augmentation is out of its range.
    #[error(transparent)]
    Augment(#[from] defrost_augment::Error),
    /// A selector that matches nothing in this network.
    #[error("`{selector}` matches nothing in {network}{}", meant_or_stages(nearest, stages))]
    NoMatch {
        /// The selector as written.
        selector: String,
        /// The network's name.
        network: Box<str>,
        /// Names in the network that are most like it, the best first.
        nearest: Box<[String]>,
        /// The network's stages.
        stages: Box<[String]>,
    },
    /// A glob or a regular expression that cannot be read.
    #[error("`{pattern}` is no pattern: {message}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What the pattern library says.
        message: String,
    },
    /// A selector that asks for more than there is.
    #[error("{selector} asks for more than there is: {network} has {has}")]
    TooMany {
        /// The selector as written.
        selector: String,
        /// The network's name.
        network: String,
        /// How many there are, with their unit.
        has: String,
    },
    /// A parameter that two entries of one table name.
    #[error("`{first}` and `{second}` both name `{param}`; make one of them narrower")]
    Ambiguous {
        /// One entry.
        first: String,
        /// The other.
        second: String,
        /// A parameter that both match.
        param: String,
    },
    /// A parameter that none of the parts of `groups` takes.
    #[error("no group takes `{param}`; add a part that matches it")]
    Ungrouped {
        /// The parameter.
        param: String,
    },
    /// A phase in which nothing would train.
    #[error("nothing trains in phase `{phase}`: its selection leaves the whole network frozen")]
    NothingTrains {
        /// The phase's name.
        phase: String,
    },
    /// Something is set for an epoch that the phase does not reach.
    #[error("{what} at epoch {needs} lies beyond the phase, which has {has} epochs (counted from 0)")]
    TooLong {
        /// What is longer than the phase.
        what: &'static str,
        /// The epoch it asks for.
        needs: usize,
        /// The epochs of the phase.
        has: usize,
    },
    /// A phase starts from a checkpoint that no phase before it saves.
    #[error("no phase before this one saves a checkpoint called `{name}`{}", meant(nearest, &[]))]
    NoCheckpoint {
        /// The checkpoint asked for.
        name: String,
        /// The saved one that is most like it.
        nearest: Option<String>,
    },
    /// No built-in recipe of that name.
    #[error("there is no recipe `{name}`{}", meant(nearest, known))]
    NoRecipe {
        /// The name asked for.
        name: String,
        /// The recipe whose name is most like it.
        nearest: Option<String>,
        /// All names.
        known: Vec<String>,
    },
}

impl RecipeError {
    pub(crate) fn new(key: impl Into<String>, kind: impl Into<RecipeErrorKind>) -> Self {
        Self { key: key.into(), line: None, kind: kind.into() }
    }

    pub(crate) fn range(key: impl Into<String>, value: impl fmt::Display, rule: &'static str) -> Self {
        Self::new(key, RecipeErrorKind::Range { value: value.to_string(), rule })
    }

    pub(crate) fn at_line(mut self, line: Option<usize>) -> Self {
        self.line = self.line.or(line);
        self
    }

    /// The same error about the key at `path`, where it names none itself.
    pub(crate) fn below(self, path: &str) -> Self {
        if self.key.is_empty() { Self { key: path.to_owned(), ..self } } else { self }
    }

    /// The path of the key, as in `phase.2.lr` (phases count from 1); empty where the whole text is meant.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The line in the recipe's text, from 1.
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong.
    pub const fn kind(&self) -> &RecipeErrorKind {
        &self.kind
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.key.as_str()) {
            (Some(line), "") => write!(f, "line {line}: ")?,
            (Some(line), key) => write!(f, "line {line}, `{key}`: ")?,
            (None, "") => {}
            (None, key) => write!(f, "`{key}`: ")?,
        }
        self.kind.fmt(f)
    }
}

impl std::error::Error for RecipeError {}

/// The one of `known` that is most like `word` (Jaro and Winkler), if any is like it at all: for messages.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (likeness, name) = known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&word.to_lowercase(), &k.to_lowercase()), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness > 0.7).then(|| name.to_owned())
}

fn meant(nearest: &Option<String>, known: &[String]) -> String {
    match (nearest, known) {
        (Some(name), _) => format!("; did you mean `{name}`?"),
        (None, []) => String::new(),
        (None, known) => format!("; known are {}", known.join(", ")),
    }
}

fn meant_or_stages(nearest: &[String], stages: &[String]) -> String {
    match nearest {
        [name, ..] => format!("; did you mean `{name}`?"),
        [] => format!("; its stages are {}", stages.join(", ")),
    }
}
