//! The recipes that the program carries.

use std::sync::LazyLock;

use crate::error::nearest;
use crate::{Recipe, RecipeError, RecipeErrorKind};

macro_rules! embedded {
    ($($name:literal,)*) => {
        [$(($name, include_str!(concat!("../../../docs/recipes/", $name, ".toml"))),)*]
    };
}

const TEXTS: &[(&str, &str)] = &embedded! {
    "two-stage",
    "head",
    "full",
    "gradual",
    "layer-decay",
    "l1-new-layers",
    "l2-last-layer",
    "l3-two-more-layers",
    "l4-rate-by-epoch",
    "l4-exponential",
    "l5-thaw-on-plateau",
    "l6-repeatable",
    "t1-pooled-head",
    "t2-last-20-layers",
    "t3-rates-by-block",
    "t4-regression",
    "t4-labels",
    "k1-flattened-head",
    "k2-last-3-layers",
    "k3-frozen-then-free",
    "k4-against-overfitting",
    "p1-head-by-sgd",
    "p2-last-stage",
    "p3-stage-by-stage",
    "p4-early-stopping",
    "f1-stages",
    "f2-fine-tune",
    "f3-checkpoints",
};

static RECIPES: LazyLock<Vec<(&str, &str, &str)>> = LazyLock::new(|| {
    let about = |text: &'static str| {
        let line = text.lines().find_map(|line| line.strip_prefix("about = \""));
        line.map_or("", |line| line.trim_end_matches('"'))
    };
    TEXTS.iter().map(|(name, text)| (*name, about(text), *text)).collect()
});

/// The recipes that the program carries: name, one line on what it does, TOML. The first is the default.
pub fn recipes() -> &'static [(&'static str, &'static str, &'static str)] {
    &RECIPES
}

impl Recipe {
    /// The recipe of that name; the number of a scenario is enough where it has one recipe (`p2` for `p2-last-stage`).
    ///
    /// # Errors
    /// [`RecipeErrorKind::NoRecipe`], with the name that is most like it.
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        let short = |n: &str| n.split_once('-').is_some_and(|(id, _)| id == name && id.len() == 2);
        let mut shorts = recipes().iter().filter(|(n, _, _)| short(n));
        let found =
            recipes().iter().find(|(n, _, _)| *n == name).or_else(|| match (shorts.next(), shorts.next()) {
                (Some(only), None) => Some(only),
                _ => None,
            });
        if let Some((_, _, text)) = found {
            return Self::from_toml(text);
        }
        let known: Vec<_> = recipes().iter().map(|(n, _, _)| (*n).to_owned()).collect();
        let nearest = nearest(name, known.iter().map(String::as_str));
        Err(RecipeError::new("", RecipeErrorKind::NoRecipe { name: name.to_owned(), nearest, known }))
    }
}
