//! The recipes that the program carries.

use crate::error::nearest;
use crate::{Recipe, RecipeError, RecipeErrorKind};

macro_rules! embedded {
    ($($name:literal: $about:literal,)*) => {
        &[$(($name, $about, include_str!(concat!("../../../docs/recipes/", $name, ".toml"))),)*]
    };
}

const RECIPES: &[(&str, &str, &str)] = embedded! {
    "two-stage": "the head first, then everything at lower rates that rise from the input to the head (the default)",
    "head": "only the head trains, on features that are computed once",
    "full": "everything trains from the first step",
};

/// The recipes that the program carries: name, one line on what it does, TOML. The first is the default.
pub fn recipes() -> &'static [(&'static str, &'static str, &'static str)] {
    RECIPES
}

impl Recipe {
    /// The recipe of that name.
    ///
    /// # Errors
    /// [`RecipeErrorKind::NoRecipe`], with the name that is most like it.
    pub fn named(name: &str) -> Result<Self, RecipeError> {
        if let Some((_, _, text)) = RECIPES.iter().find(|(n, _, _)| *n == name) {
            return Self::from_toml(text);
        }
        let known: Vec<_> = RECIPES.iter().map(|(n, _, _)| (*n).to_owned()).collect();
        let nearest = nearest(name, known.iter().map(String::as_str));
        Err(RecipeError::new("", RecipeErrorKind::NoRecipe { name: name.to_owned(), nearest, known }))
    }
}
