//! Devices by name: the one place that knows which backends this build has.

use defrost_exec::Engine;

/// A device that a person can name.
#[derive(Clone, Copy, Debug)]
pub struct Device;

/// What [`Device::from_name`] does not know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no device `{name}` in this build; it has {}", Device::names().join(", "))]
pub struct UnknownDevice {
    /// The name asked for.
    pub name: String,
}

impl Device {
    /// The names that [`Device::from_name`] knows in this build.
    pub fn names() -> Vec<&'static str> {
        vec!["cpu"]
    }

    /// The device called `name`: `cpu` (or `ndarray`) with one thread a core, `cpu:2` with two.
    ///
    /// # Errors
    /// A name that this build does not have, with those it has.
    pub fn from_name(name: &str) -> Result<Box<dyn Engine>, UnknownDevice> {
        let unknown = || UnknownDevice { name: name.into() };
        let (backend, rest) =
            name.split_once(':').map_or((name, None), |(backend, rest)| (backend, Some(rest)));
        let threads =
            rest.map(|t| t.parse::<usize>().ok().filter(|&t| t > 0).ok_or_else(unknown)).transpose()?;
        match backend {
            "cpu" | "ndarray" => Ok(Box::new(defrost_ndarray::CpuEngine::new(threads))),
            _ => Err(unknown()),
        }
    }
}
