//! Which GPUs are there, and opening one of them.

use std::fmt;

use wgpu::{Backends, DeviceType, Features, Instance, InstanceDescriptor};

/// A GPU that this machine has, or software that stands in for one.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Its place in [`adapters`].
    pub index: usize,
    /// The name that the driver gives it, as in "NVIDIA GeForce RTX 4090".
    pub name: String,
    /// What it is: "discrete GPU", "integrated GPU", "virtual GPU", "CPU" or "other".
    pub kind: &'static str,
    /// The interface it is driven by: "vulkan", "metal", "dx12".
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// The largest part of a buffer that a kernel can see at once, in bytes; larger matrices are split.
    pub max_binding: u64,
    /// The largest buffer in bytes.
    pub max_buffer: u64,
    /// Whether it computes in 16-bit floating point.
    pub half: bool,
    /// Whether it can say how long each kernel took.
    pub timestamps: bool,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.kind, self.backend)?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        f.write_str(")")
    }
}

/// Why no GPU was opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none.
    #[error(
        "no GPU adapter: no driver for Vulkan, Metal or DirectX 12 was found. Install the driver of the graphics card; \
         on Debian, `mesa-vulkan-drivers` and `libvulkan1` bring drivers for AMD and Intel and a software adapter"
    )]
    NoAdapter,
    /// There are some, but not that one.
    #[error("no adapter `{wanted}`; there is {found}")]
    NoSuchAdapter {
        /// The name or the index asked for.
        wanted: String,
        /// Those that are there, with their indices.
        found: String,
    },
    /// The driver did not open it.
    #[error("{adapter} cannot be opened: {reason}")]
    Refused {
        /// The adapter's name.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// It has no 16-bit floating point, and that was asked for.
    #[error("{adapter} has no 16-bit floating point (`shader-f16`): take f32 as `precision`")]
    NoHalf {
        /// The adapter's name.
        adapter: String,
    },
}

/// All adapters of this machine, in an order that stays the same while its drivers do.
pub fn adapters() -> Vec<AdapterInfo> {
    raw().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

/// The adapters themselves, those that compute fastest first.
fn raw() -> Vec<wgpu::Adapter> {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    // OpenGL has neither 16-bit floats nor enough storage buffers a kernel.
    descriptor.backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let mut list = pollster::block_on(Instance::new(descriptor).enumerate_adapters(Backends::all()));
    list.sort_by_key(|a| match a.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    list
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    AdapterInfo {
        index,
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "CPU",
            DeviceType::Other => "other",
        },
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        name: info.name,
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        half: features.contains(Features::SHADER_F16),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
    }
}

/// The adapter that `wanted` names: an index of [`adapters`], or a part of a name in any case; the first without it.
pub(crate) fn choose(wanted: Option<&str>) -> Result<(wgpu::Adapter, AdapterInfo), OpenError> {
    let list = raw();
    if list.is_empty() {
        return Err(OpenError::NoAdapter);
    }
    let infos: Vec<_> = list.iter().enumerate().map(|(i, a)| describe(i, a)).collect();
    let at = pick(&infos, wanted)?;
    Ok((list[at].clone(), infos[at].clone()))
}

/// The place of the adapter that `wanted` names.
fn pick(infos: &[AdapterInfo], wanted: Option<&str>) -> Result<usize, OpenError> {
    let Some(wanted) = wanted else { return Ok(0) };
    let named = |info: &AdapterInfo| info.name.to_lowercase().contains(&wanted.to_lowercase());
    let found = match wanted.parse::<usize>() {
        Ok(index) => Some(index).filter(|&i| i < infos.len()),
        Err(_) => infos.iter().position(named),
    };
    found.ok_or_else(|| OpenError::NoSuchAdapter {
        wanted: wanted.into(),
        found: infos.iter().map(|i| format!("{}: {}", i.index, i.name)).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: usize, name: &str) -> AdapterInfo {
        AdapterInfo {
            index,
            name: name.into(),
            kind: "discrete GPU",
            backend: "vulkan".into(),
            driver: "mesa 22".into(),
            max_binding: 1 << 27,
            max_buffer: 1 << 31,
            half: true,
            timestamps: true,
        }
    }

    #[test]
    fn adapters_are_named_by_index_or_part_of_their_name() {
        let list = [info(0, "NVIDIA GeForce RTX 4090"), info(1, "llvmpipe (LLVM 15)")];
        assert_eq!(pick(&list, None), Ok(0));
        assert_eq!(pick(&list, Some("1")), Ok(1));
        assert_eq!(pick(&list, Some("LLVMpipe")), Ok(1));
        assert_eq!(pick(&list, Some("geforce")), Ok(0));
        for wanted in ["2", "radeon"] {
            let error = pick(&list, Some(wanted)).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("1: llvmpipe"), "{error}");
        }
        assert_eq!(list[1].to_string(), "llvmpipe (LLVM 15) (discrete GPU, vulkan, mesa 22)");
    }
}
