//! The task that a network's weights come from: its head, and a folder of its images.

use std::path::Path;

use defrost_data::{Dataset, Options as DataOptions};
use defrost_policy::Recipe;
use defrost_train::SourceTask;

use crate::pictures::decode_options;
use crate::{Error, Model};

/// The source task of `model`, which is to be trained by `recipe`; `None` where the recipe names no images of it.
///
/// # Errors
/// Weights without a head, images that cannot be opened, folders that name no class of that head.
pub(crate) fn source_task(recipe: &Recipe, model: &Model) -> Result<Option<SourceTask>, Error> {
    let Some(folder) = recipe.retention.source.as_ref().filter(|_| recipe.retention.every > 0) else {
        return Ok(None);
    };
    let (source, named) = Model::with_source_head(recipe)?;
    let folder = Path::new(folder);
    let options = DataOptions {
        strict: recipe.data.strict,
        decode: defrost_data::DecodeOptions {
            max_pixels: recipe.data.max_pixels,
            ..decode_options(recipe.model.in_channels)
        },
        classes: Some(classes(folder, &named, source.graph.classes())?),
        ..Default::default()
    };
    // Even where the head fits the new task and trains on from there: it answers for other classes soon.
    let heads = source.graph.param_ids().filter(|&id| source.graph.stages()[source.graph.stage_of(id)].head);
    let heads = heads.map(|id| source.graph.param(id).name.clone());
    let kept = heads.chain(model.report.iter().flat_map(|r| r.reinitialised.clone())).collect();
    let pixels = source.pixels();
    let eval = source.eval_pipeline(recipe.data.resize.clone());
    let data = Dataset::open(folder, &options)?.into();
    Ok(Some(SourceTask { graph: source.graph, params: source.params, kept, data, pixels, eval }))
}

/// The names that the sub-folders of `folder` have for the `outputs` of a head: those that the weights came with, the
/// identifiers or names of ImageNet's classes, their numbers, or, of as many folders as outputs, the folders in order.
fn classes(folder: &Path, named: &[String], outputs: usize) -> Result<Vec<String>, Error> {
    let inner = ["val", "valid", "validation"].map(|n| folder.join(n)).into_iter().find(|p| p.is_dir());
    let listed = std::fs::read_dir(inner.as_deref().unwrap_or(folder));
    let entries = listed.map_err(|source| Error::Io { path: folder.into(), source })?.flatten();
    let folders = entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned());
    let mut folders: Vec<_> = folders.filter(|n| !n.starts_with('.')).collect();
    folders.sort();
    let ids: Vec<_> = defrost_zoo::imagenet_classes().map(|c| c.wnid.to_owned()).collect();
    let words: Vec<_> = defrost_zoo::imagenet_classes().map(|c| c.name.to_owned()).collect();
    let numbers: Vec<_> = (0..outputs).map(|i| i.to_string()).collect();
    let fits = |names: &&Vec<String>| names.len() == outputs && folders.iter().all(|f| names.contains(f));
    [named.to_vec(), ids, words, numbers, folders.clone()]
        .iter()
        .find(fits)
        .cloned()
        .ok_or_else(|| Error::SourceClasses { path: folder.into(), outputs, folders: folders.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_among_the_heads_classes() {
        let temp = tempfile::tempdir().unwrap();
        let of = |names: &[&str], named: &[&str], outputs| {
            let folder = temp.path().join(names.join("-"));
            names.iter().for_each(|n| std::fs::create_dir_all(folder.join(n)).unwrap());
            let named: Vec<_> = named.iter().map(|n| (*n).to_owned()).collect();
            classes(&folder, &named, outputs)
        };
        assert_eq!(of(&["dog", "ant"], &["ant", "bee", "dog"], 3).unwrap(), ["ant", "bee", "dog"]);
        assert_eq!(of(&["2", "0"], &[], 3).unwrap(), ["0", "1", "2"]);
        assert_eq!(of(&["n01440764", "n02979186"], &[], 1000).unwrap()[482], "n02979186");
        assert_eq!(of(&["b", "a"], &[], 2).unwrap(), ["a", "b"]);
        let error = of(&["cat", "cow"], &["ant", "bee", "dog"], 3).unwrap_err().to_string();
        assert!(error.contains("3 outputs") && error.contains("cat-cow"), "{error}");
    }
}
