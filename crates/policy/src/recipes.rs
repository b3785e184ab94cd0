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
    /// The recipe of that name.
    ///
    /// # Errors
    /// [`RecipeErrorKind::NoRecipe`], with the name that is most like it.
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        if let Some((_, _, text)) = recipes().iter().find(|(n, _, _)| *n == name) {
            return Self::from_toml(text);
        }
        let known: Vec<_> = recipes().iter().map(|(n, _, _)| (*n).to_owned()).collect();
        let nearest = nearest(name, known.iter().map(String::as_str));
        Err(RecipeError::new("", RecipeErrorKind::NoRecipe { name: name.to_owned(), nearest, known }))
    }
}
