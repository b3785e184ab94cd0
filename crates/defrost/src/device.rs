//! Devices by name: the one place that knows which backends this build has.

use defrost_exec::Engine;

/// A device that a person can name.
#[derive(Clone, Copy, Debug)]
pub struct Device;

/// Why [`Device::from_name`] opened nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such name.
    #[error("no device `{name}` in this build; it has {}{}", Device::names().join(", "), hint(name, cfg!(feature = "wgpu")))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A GPU that cannot be opened.
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Wgpu(#[from] defrost_wgpu::OpenError),
}

impl DeviceError {
    /// Whether the name is at fault and not the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            #[cfg(feature = "wgpu")]
            Self::Wgpu(error) => matches!(error, defrost_wgpu::OpenError::NoSuchAdapter { .. }),
        }
    }
}

/// What to do about a name that another build has.
fn hint(name: &str, wgpu: bool) -> &'static str {
    match wgpu {
        false if name.starts_with("wgpu") => ": build with `--features wgpu`",
        _ => "",
    }
}

impl Device {
    /// The names that [`Device::from_name`] knows in this build.
    pub fn names() -> Vec<&'static str> {
        if cfg!(feature = "wgpu") { vec!["cpu", "wgpu"] } else { vec!["cpu"] }
    }

    /// The devices of this machine that this build can use: a name for [`Device::from_name`], and what it is.
    pub fn list() -> Vec<(String, String)> {
        let cpu = defrost_ndarray::CpuEngine::new(None).device();
        #[allow(unused_mut)] // Without the features there is one.
        let mut list = vec![("cpu".to_owned(), cpu)];
        #[cfg(feature = "wgpu")]
        list.extend(defrost_wgpu::adapters().into_iter().map(|a| {
            let half = if a.half { ", f16" } else { "" };
            (format!("wgpu:{}", a.index), format!("{a}{half}"))
        }));
        list
    }

    /// The device called `name`.
    ///
    /// `cpu` (or `ndarray`) has one thread a core, `cpu:2` two; with `,exact` at the end convolutions are plain sums, without
    /// Winograd's way. `wgpu` is the fastest kind of GPU here, `wgpu:1` the one of that
    /// place in [`Device::list`], `wgpu:radeon` the first with that in its name; with `,f16` at the end it stores and
    /// multiplies activations in 16 bits.
    ///
    /// # Errors
    /// A name that this build does not have, with those it has; a GPU that is not there or cannot be opened.
    pub fn from_name(name: &str) -> Result<Box<dyn Engine>, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.into() };
        let (whole, half) = name.strip_suffix(",f16").map_or((name, false), |rest| (rest, true));
        let (whole, exact) = whole.strip_suffix(",exact").map_or((whole, false), |rest| (rest, true));
        let (backend, rest) =
            whole.split_once(':').map_or((whole, None), |(backend, rest)| (backend, Some(rest)));
        match backend {
            "cpu" | "ndarray" if !half => {
                let threads = rest.map(|t| t.parse::<usize>().ok().filter(|&t| t > 0).ok_or_else(unknown));
                let mut options = defrost_ndarray::CpuOptions::default();
                (options.threads, options.exact) = (threads.transpose()?, exact);
                Ok(Box::new(defrost_ndarray::CpuEngine::with_options(options)))
            }
            #[cfg(feature = "wgpu")]
            "wgpu" if !exact => {
                let mut options = defrost_wgpu::WgpuOptions::default();
                options.adapter = rest.map(str::to_owned);
                options.half = half;
                Ok(Box::new(defrost_wgpu::WgpuEngine::new(&options)?))
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        for name in ["tpu", "cpu:0", "cpu:x", "cpu,f16"] {
            let error = Device::from_name(name).err().unwrap();
            assert!(error.is_usage() && error.to_string().contains(&format!("`{name}`")), "{error}");
            assert!(error.to_string().contains("it has cpu"), "{error}");
        }
        assert_eq!(Device::list()[0].0, "cpu");
        let device = Device::from_name("cpu:1,exact").unwrap().device();
        assert!(device.starts_with("cpu (1 thread, ") && device.ends_with(", exact)"), "{device}");
    }

    #[test]
    fn a_build_without_gpus_says_how_to_get_them() {
        assert!(hint("wgpu:0", false).ends_with("build with `--features wgpu`"));
        assert_eq!((hint("wgpu:0", true), hint("tpu", false)), ("", ""));
        #[cfg(not(feature = "wgpu"))]
        {
            let error = Device::from_name("wgpu:0").err().unwrap();
            assert!(error.to_string().ends_with("build with `--features wgpu`"), "{error}");
        }
    }
}
