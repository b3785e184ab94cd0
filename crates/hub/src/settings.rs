//! Where files come from and where they lie: from the variables that Hugging Face, torch and Keras read.

use std::path::PathBuf;
use std::time::Duration;

/// Servers, folders and patience. [`Settings::from_env`] is what a program wants; tests change single fields.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The hub, without a slash at the end: `HF_ENDPOINT`, else `https://huggingface.co`.
    pub hub_endpoint: String,
    /// The hub's cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `huggingface/hub` in `XDG_CACHE_HOME` or `~/.cache`.
    pub hub_cache: PathBuf,
    /// What proves who asks, sent to the hub alone: `HF_TOKEN`, else the file of `hf auth login`.
    pub token: Option<String>,
    /// torchvision's storage: `DEFROST_TORCH_ENDPOINT`, else `https://download.pytorch.org/models`.
    pub torch_endpoint: String,
    /// torch's files: `hub/checkpoints` in `TORCH_HOME`, else in `torch` in `XDG_CACHE_HOME` or `~/.cache`.
    pub torch_cache: PathBuf,
    /// Keras' storage: `DEFROST_KERAS_ENDPOINT`, else `https://storage.googleapis.com/tensorflow/keras-applications`.
    pub keras_endpoint: String,
    /// Keras' files: `models` in `KERAS_HOME`, else in `~/.keras`.
    pub keras_cache: PathBuf,
    /// The variable that forbids every download, `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: Option<&'static str>,
    /// How long a server may take to answer: `HF_HUB_ETAG_TIMEOUT` in seconds, else 10.
    pub answer_timeout: Duration,
    /// How long a transfer may stand still: `HF_HUB_DOWNLOAD_TIMEOUT` in seconds, else 10.
    pub stall_timeout: Duration,
    /// A file of certificates in PEM that replaces the built-in ones: `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
    /// Attempts in a row that may bring nothing before a broken transfer is given up.
    pub attempts: u32,
    /// The wait before the second of them; it doubles with each.
    pub first_wait: Duration,
}

impl Settings {
    /// As this process' environment says.
    pub fn from_env() -> Self {
        let home = std::env::home_dir().unwrap_or_else(|| ".".into());
        Self::from_vars(home, |name| std::env::var(name).ok())
    }

    /// As the variables that `get` knows say, for a user whose home folder is `home`.
    pub fn from_vars(home: PathBuf, get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let folder = |name: &str| get(name).map(|v| under(&home, &v));
        let endpoint = |name: &str, default: &str| {
            get(name).unwrap_or_else(|| default.into()).trim_end_matches('/').to_owned()
        };
        let seconds = |name: &str| Duration::from_secs(get(name).and_then(|v| v.parse().ok()).unwrap_or(10));
        let is_on = |name: &&str| get(name).is_some_and(|v| is_true(&v));

        let cache = folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hf_home = folder("HF_HOME").unwrap_or_else(|| cache.join("huggingface"));
        let hub_cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let token_file = folder("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let text = std::fs::read_to_string(token_file).ok()?;
            Some(text.trim().to_owned()).filter(|t| !t.is_empty())
        });
        Self {
            hub_endpoint: endpoint("HF_ENDPOINT", "https://huggingface.co"),
            hub_cache: hub_cache.unwrap_or_else(|| hf_home.join("hub")),
            token: token.filter(|_| !is_on(&"HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            torch_endpoint: endpoint("DEFROST_TORCH_ENDPOINT", "https://download.pytorch.org/models"),
            torch_cache: folder("TORCH_HOME").unwrap_or_else(|| cache.join("torch")).join("hub/checkpoints"),
            keras_endpoint: endpoint(
                "DEFROST_KERAS_ENDPOINT",
                "https://storage.googleapis.com/tensorflow/keras-applications",
            ),
            keras_cache: folder("KERAS_HOME").unwrap_or_else(|| home.join(".keras")).join("models"),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(is_on),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT"),
            stall_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT"),
            certificates: folder("SSL_CERT_FILE"),
            attempts: 5,
            first_wait: Duration::from_millis(500),
        }
    }
}

/// A path as a shell would give it: `~` is the home folder.
fn under(home: &std::path::Path, text: &str) -> PathBuf {
    match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => text.into(),
    }
}

/// What Python's `huggingface_hub` takes for yes.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn with(vars: &[(&str, &str)]) -> Settings {
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Settings::from_vars("/home/u".into(), get)
    }

    #[test]
    fn folders_are_those_of_the_python_tools() {
        let plain = with(&[]);
        assert_eq!(plain.hub_cache, Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(plain.torch_cache, Path::new("/home/u/.cache/torch/hub/checkpoints"));
        assert_eq!(plain.keras_cache, Path::new("/home/u/.keras/models"));
        assert_eq!((plain.offline, plain.token), (None, None));
        let moved = with(&[
            ("XDG_CACHE_HOME", "/c"),
            ("HF_HOME", "~/hf"),
            ("TORCH_HOME", "/t"),
            ("KERAS_HOME", "/k"),
        ]);
        assert_eq!(moved.hub_cache, Path::new("/home/u/hf/hub"));
        assert_eq!(moved.torch_cache, Path::new("/t/hub/checkpoints"));
        assert_eq!(moved.keras_cache, Path::new("/k/models"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/c")]).torch_cache, Path::new("/c/torch/hub/checkpoints"));
        let cache = with(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")]);
        assert_eq!(cache.hub_cache, Path::new("/cache"));
    }

    #[test]
    fn servers_tokens_and_patience_are_read() {
        let mirror =
            with(&[("HF_ENDPOINT", "http://m:80/"), ("HF_TOKEN", " t\n"), ("HF_HUB_DOWNLOAD_TIMEOUT", "3")]);
        assert_eq!((mirror.hub_endpoint.as_str(), mirror.token.as_deref()), ("http://m:80", Some("t")));
        assert_eq!(mirror.stall_timeout, Duration::from_secs(3));
        assert_eq!(with(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert_eq!(with(&[("HF_HUB_OFFLINE", "yes")]).offline, Some("HF_HUB_OFFLINE"));
        assert_eq!(
            with(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline,
            Some("TRANSFORMERS_OFFLINE")
        );

        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_x\n").unwrap();
        let logged_in = with(&[("HF_HOME", home.path().to_str().unwrap())]);
        assert_eq!(logged_in.token.as_deref(), Some("hf_x"));
    }
}
