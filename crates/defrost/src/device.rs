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
    #[error("no device `{name}` in this build; it has {}{}", Device::names().join(", "), hint(name, &OPTIONAL))]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// Numbers that the backend does not have.
    #[error("{backend} has no {precision}: it has {}; `precision` is an option of the recipe and of the command line", has.join(" and "))]
    NoSuchPrecision {
        /// The backend.
        backend: String,
        /// What was asked for.
        precision: String,
        /// What there is.
        has: &'static [&'static str],
    },
    /// A GPU that cannot be opened.
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Wgpu(#[from] defrost_wgpu::OpenError),
    /// A device of candle's that cannot be opened.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Candle(#[from] defrost_candle::OpenError),
}

impl DeviceError {
    /// Whether the name is at fault and not the machine.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NoSuchPrecision { .. } => true,
            #[cfg(feature = "wgpu")]
            Self::Wgpu(error) => matches!(error, defrost_wgpu::OpenError::NoSuchAdapter { .. }),
            #[cfg(feature = "candle")]
            Self::Candle(error) => error.is_usage(),
        }
    }
}

/// The backends that a build may have or leave out, each with whether this one has it.
const OPTIONAL: [(&str, bool); 2] = [("wgpu", cfg!(feature = "wgpu")), ("candle", cfg!(feature = "candle"))];

/// The numbers that activations may be stored and multiplied in, backend by backend. A machine may have fewer.
const PRECISIONS: [(&str, &[&str]); 4] = [
    ("cpu", &["f32", "bf16"]),
    ("ndarray", &["f32", "bf16"]),
    ("wgpu", &["f32", "f16"]),
    ("candle", &["f32", "f16", "bf16"]),
];

/// Refuses numbers that other backends have and this one does not.
fn check_precision(backend: &str, how: &str) -> Result<(), DeviceError> {
    let Some((_, has)) = PRECISIONS.iter().find(|(name, _)| *name == backend) else { return Ok(()) };
    match PRECISIONS.iter().any(|(_, all)| all.contains(&how)) && !has.contains(&how) {
        true => Err(DeviceError::NoSuchPrecision { backend: backend.into(), precision: how.into(), has }),
        false => Ok(()),
    }
}

/// What to do about a name that another build has.
fn hint(name: &str, optional: &[(&str, bool)]) -> String {
    match optional.iter().find(|(backend, built)| !built && name.starts_with(backend)) {
        Some((backend, _)) => format!(": build with `--features {backend}`"),
        None => String::new(),
    }
}

/// What `candle:REST` means.
#[cfg(feature = "candle")]
fn candle_place(rest: Option<&str>) -> Option<defrost_candle::Place> {
    use defrost_candle::Place;
    let (place, number) = match rest.unwrap_or("cpu").split_once(':') {
        Some((place, number)) => (place, Some(number.parse::<usize>().ok()?)),
        None => (rest.unwrap_or("cpu"), None),
    };
    match place {
        "cpu" if number != Some(0) => Some(Place::Cpu { threads: number }),
        "cuda" => Some(Place::Cuda(number.unwrap_or(0))),
        "metal" => Some(Place::Metal(number.unwrap_or(0))),
        _ => None,
    }
}

impl Device {
    /// The names that [`Device::from_name`] knows in this build.
    pub fn names() -> Vec<&'static str> {
        let built = OPTIONAL.iter().filter(|(_, built)| *built).map(|(name, _)| *name);
        std::iter::once("cpu").chain(built).collect()
    }

    /// The backends that this build leaves out; each is the name of a feature.
    pub fn left_out() -> Vec<&'static str> {
        OPTIONAL.iter().filter(|(_, built)| !built).map(|(name, _)| *name).collect()
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
        #[cfg(feature = "candle")]
        list.extend(defrost_candle::devices());
        list
    }

    /// The device called `name`.
    ///
    /// `cpu` (or `ndarray`) has one thread a core, `cpu:2` two; with `,exact` at the end convolutions are plain sums, without
    /// Winograd's way, with `,bf16` products are of bfloat16 where the CPU has them (elsewhere of f32, and its description
    /// says so). `wgpu` is the fastest kind of GPU here, `wgpu:1` the one of that
    /// place in [`Device::list`], `wgpu:radeon` the first with that in its name. `candle` is candle's CPU (`candle:cpu:2` with two
    /// threads, and `,exact`), `candle:cuda:1` and `candle:metal` are GPUs. With `,f16` at the end (`,bf16` for candle) a GPU
    /// stores and multiplies activations in 16 bits.
    ///
    /// # Errors
    /// A name that this build does not have, with those it has; a GPU that is not there or cannot be opened.
    pub fn from_name(name: &str) -> Result<Box<dyn Engine>, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.into() };
        let (whole, how) = name.split_once(',').map_or((name, "f32"), |(whole, how)| (whole, how));
        let (backend, rest) =
            whole.split_once(':').map_or((whole, None), |(backend, rest)| (backend, Some(rest)));
        check_precision(backend, how)?;
        match backend {
            "cpu" | "ndarray" if ["f32", "exact", "bf16"].contains(&how) => {
                let threads = rest.map(|t| t.parse::<usize>().ok().filter(|&t| t > 0).ok_or_else(unknown));
                let mut options = defrost_ndarray::CpuOptions::default();
                options.threads = threads.transpose()?;
                (options.exact, options.bf16) = (how == "exact", how == "bf16");
                Ok(Box::new(defrost_ndarray::CpuEngine::with_options(options)))
            }
            #[cfg(feature = "wgpu")]
            "wgpu" if ["f32", "f16"].contains(&how) => {
                let mut options = defrost_wgpu::WgpuOptions::default();
                options.adapter = rest.map(str::to_owned);
                options.half = how == "f16";
                Ok(Box::new(defrost_wgpu::WgpuEngine::new(&options)?))
            }
            #[cfg(feature = "candle")]
            "candle" => {
                let mut options = defrost_candle::CandleOptions::new(candle_place(rest).ok_or_else(unknown)?);
                match (how, options.place) {
                    ("exact", defrost_candle::Place::Cpu { .. }) => options.exact = true,
                    _ => options.precision = defrost_candle::Precision::from_name(how).ok_or_else(unknown)?,
                }
                Ok(Box::new(defrost_candle::CandleEngine::new(&options)?))
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
        for name in
            ["tpu", "cpu:0", "cpu:x", "cpu,f64", "wgpu,f64", "candle:cpu:0", "candle:tpu", "candle,f64"]
        {
            let error = Device::from_name(name).err().unwrap();
            assert!(error.is_usage() && error.to_string().contains(&format!("`{name}`")), "{error}");
            assert!(error.to_string().contains("it has cpu"), "{error}");
        }
        assert_eq!(Device::list()[0].0, "cpu");
        let device = Device::from_name("cpu:1,exact").unwrap().device();
        assert!(device.starts_with("cpu (1 thread, ") && device.ends_with(", exact)"), "{device}");
        let device = Device::from_name("cpu:1,bf16").unwrap().device();
        assert!(device.contains("bf16"), "{device}");
    }

    #[test]
    fn numbers_that_a_backend_does_not_have_are_refused_with_those_it_has() {
        for (name, has) in [
            ("cpu:2,f16", "cpu has no f16: it has f32 and bf16"),
            ("wgpu,bf16", "wgpu has no bf16: it has f32 and f16"),
        ] {
            let error = Device::from_name(name).err().unwrap();
            assert!(error.is_usage() && error.to_string().starts_with(has), "{error}");
        }
        assert!(Device::from_name("cpu:1,f32").is_ok());
        assert_eq!(check_precision("candle", "bf16"), Ok(()));
    }

    #[test]
    fn a_build_without_gpus_says_how_to_get_them() {
        let bare = [("wgpu", false), ("candle", false)];
        assert!(hint("wgpu:0", &bare).ends_with("build with `--features wgpu`"));
        assert!(hint("candle:cuda", &bare).ends_with("build with `--features candle`"));
        assert_eq!((hint("wgpu:0", &[("wgpu", true)]), hint("tpu", &bare)), (String::new(), String::new()));
        #[cfg(not(feature = "wgpu"))]
        {
            let error = Device::from_name("wgpu:0").err().unwrap();
            assert!(error.to_string().ends_with("build with `--features wgpu`"), "{error}");
        }
    }

    #[cfg(feature = "candle")]
    #[test]
    fn devices_of_candle_open_by_name_and_say_what_is_missing() {
        for name in ["candle", "candle:cpu", "candle:cpu:1"] {
            assert!(Device::from_name(name).unwrap().device().starts_with("candle cpu ("), "{name}");
        }
        assert!(Device::list().iter().any(|(name, _)| name == "candle:cpu"));
        let error = Device::from_name("candle,bf16").err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("has no bf16"), "{error}");
        if !cfg!(feature = "candle-cuda") {
            let error = Device::from_name("candle:cuda:1").err().unwrap();
            assert!(error.to_string().ends_with("build with `--features candle-cuda`"), "{error}");
        }
    }
}
