//! Checkpoints of runs by the names that people give them: `runs/photos-1` and `runs/photos-1/stage-1`.

use std::path::{Path, PathBuf};

use defrost_train::Folder;

/// The run and the weight file that `path` means: a run's folder its best weights, or its last before there are any; a name
/// below a run's folder the checkpoint of that name. `None` where it means no run.
pub(crate) fn checkpoint(path: &Path) -> Option<(Folder, PathBuf)> {
    if let Ok(run) = Folder::open(path) {
        let found = ["best", "last"].map(|name| run.checkpoint_path(name)).into_iter().find(|p| p.exists());
        let file = found.unwrap_or_else(|| run.checkpoint_path("best"));
        return Some((run, file));
    }
    let (run, name) = (Folder::open(path.parent()?).ok()?, path.file_name()?.to_str()?);
    let file = run.checkpoint_path(name);
    file.is_file().then_some((run, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_their_checkpoints_go_by_name() {
        let temp = tempfile::tempdir().unwrap();
        let run = temp.path().join("run");
        assert!(checkpoint(&run).is_none());
        drop(defrost_train::Run::create(&run, "", &[]).unwrap());
        let file = |name: &str| run.join(format!("checkpoints/{name}.safetensors"));
        let of = |name: &str| checkpoint(&run.join(name)).map(|(_, file)| file);
        assert_eq!(of(""), Some(file("best")), "named in the error that follows");
        assert_eq!(of("stage-1"), None);
        for name in ["last", "stage-1"] {
            std::fs::write(file(name), b"").unwrap();
        }
        assert_eq!((of(""), of("stage-1")), (Some(file("last")), Some(file("stage-1"))));
        assert_eq!((of("checkpoints"), of("recipe.toml"), of("stage-2")), (None, None, None));
    }
}
