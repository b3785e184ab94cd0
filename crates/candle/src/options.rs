//! Which device is opened, and what cannot be.

use candle_core::Device;
use defrost_tensor::Kernels;

use crate::CandleKernels;

/// Where tensors live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Place {
    /// This machine's CPU.
    Cpu {
        /// Compute threads; one a core by default. The number changes no bit of any result.
        threads: Option<usize>,
    },
    /// An NVIDIA GPU, by its place in the driver's order.
    Cuda(usize),
    /// An Apple GPU, by its place in the system's order.
    Metal(usize),
}

/// What activations and the operands of products are stored in.
///
/// Parameters, statistics, sums, losses and optimizers are f32 always.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half precision. Gradients of activations stay in 32 bits: many are too small for 16.
    F16,
    /// 16 bits with the exponents of f32.
    Bf16,
}

/// What [`CandleKernels::new`](crate::CandleKernels::new) opens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CandleOptions {
    /// The device.
    pub place: Place,
    /// The numbers.
    pub precision: Precision,
    /// On the CPU, convolutions as the plain sums of products, without Winograd's way of leaving products out.
    pub exact: bool,
    /// Compositions of candle's operations on the CPU too, as on a GPU. Slow: for tests of what GPUs do.
    #[doc(hidden)]
    pub composed: bool,
}

impl CandleOptions {
    /// A device with f32.
    pub const fn new(place: Place) -> Self {
        Self { place, precision: Precision::F32, exact: false, composed: false }
    }
}

/// Why a device was not opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The feature is off.
    #[error("candle was built without {device}: build with `--features {feature}`")]
    NotBuilt {
        /// The kind of device.
        device: &'static str,
        /// What brings it, in the program's words.
        feature: &'static str,
    },
    /// The device does not have such numbers.
    #[error("{device} has no {precision} here: candle offers 16 bits on CUDA and Metal")]
    NoSuchPrecision {
        /// The device.
        device: &'static str,
        /// What was asked for.
        precision: &'static str,
    },
    /// The driver did not open it.
    #[error("the candle device {device} cannot be opened: {reason}")]
    Refused {
        /// The device.
        device: String,
        /// What the driver said.
        reason: String,
    },
}

impl OpenError {
    /// Whether the name is at fault and not the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NotBuilt { .. } | Self::NoSuchPrecision { .. })
    }
}

impl Precision {
    /// `f32`, `f16` or `bf16`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|p| p.name() == name)
    }

    /// As it is written in a device's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

impl Place {
    /// As candle calls it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Cpu { .. } => "cpu".to_owned(),
            Self::Cuda(n) => format!("cuda:{n}"),
            Self::Metal(n) => format!("metal:{n}"),
        }
    }

    /// Opens it.
    pub(crate) fn open(self) -> Result<Device, OpenError> {
        let refused =
            |e: candle_core::Error| OpenError::Refused { device: self.name(), reason: e.to_string() };
        match self {
            Self::Cpu { .. } => Ok(Device::Cpu),
            Self::Cuda(_) if !cfg!(feature = "cuda") => {
                Err(OpenError::NotBuilt { device: "CUDA", feature: "candle-cuda" })
            }
            Self::Metal(_) if !cfg!(feature = "metal") => {
                Err(OpenError::NotBuilt { device: "Metal", feature: "candle-metal" })
            }
            Self::Cuda(n) => Device::new_cuda(n).map_err(refused),
            Self::Metal(n) => Device::new_metal(n).map_err(refused),
        }
    }
}

/// The devices of this machine that this build can use: a name, and what it is.
pub fn devices() -> Vec<(String, String)> {
    let places = (0..16).map(Place::Cuda).take_while(|place| place.open().is_ok());
    let places = [Place::Cpu { threads: None }].into_iter().chain(places).chain([Place::Metal(0)]);
    let about = |place| {
        // Only those that open: a driver may be missing where the feature is on.
        let kernels = CandleKernels::new(&CandleOptions::new(place)).ok()?;
        let name = match place {
            Place::Cpu { .. } => "candle:cpu".to_owned(),
            Place::Cuda(n) => format!("candle:cuda:{n}"),
            Place::Metal(_) => "candle:metal".to_owned(),
        };
        Some((name, kernels.device()))
    };
    places.filter_map(about).collect()
}
