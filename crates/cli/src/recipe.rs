//! The recipe that the arguments mean, and what is wrong with it: in which file, on which line.

use std::path::Path;

use defrost::policy::{Recipe, line_of};

use crate::{Usage, args};

impl args::Recipe {
    /// The default recipe, or the one asked for, with everything that was changed.
    pub(crate) fn resolve(&self) -> anyhow::Result<Recipe> {
        self.change(Recipe::named("two-stage")?)
    }

    /// `recipe`, or the one asked for, with everything that was changed.
    pub(crate) fn change(&self, recipe: Recipe) -> anyhow::Result<Recipe> {
        self.adapt(self.asked()?.unwrap_or(recipe))
    }

    /// The recipe asked for, as it is.
    pub(crate) fn asked(&self) -> anyhow::Result<Option<Recipe>> {
        if let Some((path, text)) = self.file()? {
            let recipe =
                Recipe::from_toml(&text).map_err(|e| Usage::new(format!("{}: {e}", path.display())))?;
            return Ok(Some(recipe));
        }
        Ok(self.recipe.as_deref().map(Recipe::named).transpose()?)
    }

    /// `recipe` with everything that was changed.
    pub(crate) fn adapt(&self, mut recipe: Recipe) -> anyhow::Result<Recipe> {
        let mut set =
            |key: &str, value: Option<String>| value.map_or(Ok(()), |value| recipe.set(key, &value));
        set("model.arch", self.model.clone())?;
        set("model.weights", self.weights.clone())?;
        set("model.keep_head", self.keep_head.then(|| "true".into()))?;
        set("model.strict", self.strict_weights.then(|| "true".into()))?;
        set("data.image_size", self.image_size.map(|v| v.to_string()))?;
        set("batch_size", self.batch.map(|v| v.to_string()))?;
        set("seed", self.seed.map(|v| v.to_string()))?;
        for pair in &self.set {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Usage::new(format!("--set {pair}: write it as KEY=VALUE")))?;
            set(key, Some(value.to_owned()))?;
        }
        Ok(recipe)
    }

    /// `fine_tune`, prepared. First of all its recipe is looked at, then what it needs is brought.
    pub(crate) fn prepare(
        &self,
        fine_tune: defrost::FineTune,
        quiet: bool,
    ) -> anyhow::Result<defrost::Prepared> {
        self.located(fine_tune.check())?;
        crate::pull::for_recipe(&fine_tune.recipe, quiet)?;
        self.located(fine_tune.prepare())
    }

    /// The recipe's file and its text, where a file is given.
    fn file(&self) -> anyhow::Result<Option<(&Path, String)>> {
        let Some(path) = self.recipe.as_deref().map(Path::new) else { return Ok(None) };
        if path.extension().is_none_or(|e| e != "toml") && !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| Usage::new(format!("the recipe {} cannot be read: {e}", path.display())))?;
        Ok(Some((path, text)))
    }

    /// `result`, whose error says the line of the recipe where the fault is in a file.
    pub(crate) fn located<T>(&self, result: Result<T, defrost::Error>) -> anyhow::Result<T> {
        match (result, self.file()?) {
            (Err(defrost::Error::Recipe(error)), Some((path, text))) => {
                // What an argument changed is in no line.
                let error = if self.changes(error.key(), &text) { error } else { error.locate(&text) };
                Err(Usage::new(format!("{}: {error}", path.display())).into())
            }
            // The zoo's own names are in a recipe too.
            (
                Err(error @ defrost::Error::Zoo(defrost::zoo::ZooError::Unknown { what: "model", .. })),
                Some((path, text)),
            ) if !self.changes("model.arch", &text) => {
                let line =
                    line_of(&text, "model.arch").map_or(String::new(), |line| format!("line {line}, "));
                Err(Usage::new(format!("{}: {line}`model.arch`: {error}", path.display())).into())
            }
            (result, _) => Ok(result?),
        }
    }

    /// Whether `key` of the recipe (phases by number) or what it lies in was set by an argument.
    fn changes(&self, key: &str, text: &str) -> bool {
        let flags = [
            ("model.arch", self.model.is_some()),
            ("model.weights", self.weights.is_some()),
            ("data.image_size", self.image_size.is_some()),
            ("batch_size", self.batch.is_some()),
        ];
        let flags = flags.into_iter().filter(|(_, given)| *given).map(|(key, _)| key.to_owned());
        let phases = Recipe::from_toml(text).map(|r| r.phases).unwrap_or_default();
        // A phase may be meant by its name.
        let by_number = |pair: &str| {
            let key = pair.split('=').next().unwrap_or_default();
            let Some((name, rest)) = key.strip_prefix("phase.").and_then(|k| k.split_once('.')) else {
                return key.to_owned();
            };
            let at = phases.iter().position(|phase| phase.name == name);
            at.map_or(key.to_owned(), |at| format!("phase.{}.{rest}", at + 1))
        };
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        flags
            .chain(self.set.iter().map(|pair| by_number(pair)))
            .any(|set| within(key, &set) || within(&set, key))
    }
}
