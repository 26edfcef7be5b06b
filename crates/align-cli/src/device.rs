//! `--device`: where the tensors live.

use std::str::FromStr;

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DeviceChoice {
    /// The CPU.
    Flex,
    /// A GPU through WGPU.
    Wgpu(usize),
    /// An NVIDIA GPU.
    Cuda(usize),
    /// The fastest of those that were compiled in and start.
    Auto,
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DeviceError {
    #[error("unknown device `{found}`: expected flex, wgpu, wgpu:1, cuda, cuda:1 or auto")]
    Unknown { found: String },
    #[error(
        "device `{device}` was not compiled in; get it with `cargo run --release --features {feature} -- …` \
         or `cargo install --path crates/align-cli --features {feature}`"
    )]
    #[allow(dead_code)] // which variants can occur depends on the features
    NotCompiled { device: String, feature: &'static str },
    #[error("device `{device}` does not start: {reason}; {hint}")]
    #[allow(dead_code)]
    DoesNotStart { device: String, reason: String, hint: &'static str },
    #[error("unknown type `{found}`: expected f32, bf16 or f16")]
    UnknownDtype { found: String },
    #[error("device `{device}` does not compute in {dtype}: expected a device that does, or --dtype f32")]
    NoDtype { device: String, dtype: &'static str },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { found: text.to_owned() };
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, index.parse().map_err(|_| unknown())?),
            None => (text, 0),
        };
        match (kind, text.contains(':')) {
            ("flex", false) => Ok(Self::Flex),
            ("auto", false) => Ok(Self::Auto),
            ("wgpu", _) => Ok(Self::Wgpu(index)),
            ("cuda", _) => Ok(Self::Cuda(index)),
            _ => Err(unknown()),
        }
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flex => write!(f, "flex"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Auto => write!(f, "auto"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

/// The type of a model's weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum DtypeChoice {
    F32,
    Bf16,
    F16,
}

impl FromStr for DtypeChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "f32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            _ => Err(DeviceError::UnknownDtype { found: text.to_owned() }),
        }
    }
}

impl From<DtypeChoice> for String {
    fn from(choice: DtypeChoice) -> Self {
        choice.name().to_owned()
    }
}

impl TryFrom<String> for DtypeChoice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl DtypeChoice {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Burn's name for it, if the device computes in it.
    pub(crate) fn on(self, device: &Device, choice: &dyn std::fmt::Display) -> Result<DType, DeviceError> {
        let dtype = match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        };
        if device.supports_dtype(dtype) {
            Ok(dtype)
        } else {
            Err(DeviceError::NoDtype { device: choice.to_string(), dtype: self.name() })
        }
    }
}

impl DeviceChoice {
    /// Starts the device and computes something on it, so that a device that does not work is found out here.
    pub(crate) fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Flex => flex(),
            Self::Wgpu(index) => wgpu(index),
            Self::Cuda(index) => cuda(index),
            Self::Auto => cuda(0).or_else(|_| wgpu(0)).or_else(|_| flex()),
        }
    }
}

/// Whether tensors of the device live in the machine's own memory.
pub(crate) fn is_cpu(device: &Device) -> bool {
    flex().is_ok_and(|cpu| *device == cpu)
}

#[cfg(feature = "flex")]
fn flex() -> Result<Device, DeviceError> {
    Ok(Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Device, DeviceError> {
    Err(DeviceError::NotCompiled { device: "flex".into(), feature: "flex" })
}

#[cfg(feature = "wgpu")]
fn wgpu(index: usize) -> Result<Device, DeviceError> {
    use burn::tensor::DeviceKind;
    let kind = if index == 0 { DeviceKind::DefaultDevice } else { DeviceKind::DiscreteGpu(index - 1) };
    started(
        DeviceChoice::Wgpu(index),
        "a Vulkan, Metal or DirectX 12 driver is needed (Mesa's software Vulkan will do)",
        move || Device::wgpu(kind),
    )
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotCompiled { device: DeviceChoice::Wgpu(index).to_string(), feature: "wgpu" })
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    // Without a driver Burn hands out the device and the first operation fails deep inside.
    started(
        DeviceChoice::Cuda(index),
        "an NVIDIA driver (libcuda) and CUDA's run-time compiler (libnvrtc) are needed",
        move || Device::cuda(index),
    )
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotCompiled { device: DeviceChoice::Cuda(index).to_string(), feature: "cuda" })
}

/// Runs `open` and one small sum; whatever panics inside becomes an error.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn started(
    choice: DeviceChoice,
    hint: &'static str,
    open: impl FnOnce() -> Device + Send + 'static,
) -> Result<Device, DeviceError> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::thread::spawn(move || {
        let device = open();
        let two: f32 = burn::tensor::Tensor::<1>::ones([2], &device).sum().into_scalar();
        (device, two)
    })
    .join();
    std::panic::set_hook(quiet);
    let fails = |reason: String| DeviceError::DoesNotStart { device: choice.to_string(), reason, hint };
    match result {
        Ok((device, 2.0)) => Ok(device),
        Ok((_, other)) => Err(fails(format!("1 + 1 gave {other} on it"))),
        Err(panic) => Err(fails(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "it panicked".to_owned()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_people_write_are_read() {
        assert_eq!("flex".parse::<DeviceChoice>().unwrap(), DeviceChoice::Flex);
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert_eq!("wgpu:1".parse::<DeviceChoice>().unwrap(), DeviceChoice::Wgpu(1));
        for wrong in ["gpu", "cuda:x", "flex:1", ""] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(
                message.contains(&format!("`{wrong}`")) && message.contains("expected flex"),
                "{message}"
            );
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_was_not_compiled_in_says_how_to_get_it() {
        let message = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
        assert!(message.contains("`cuda:0` was not compiled in"), "{message}");
        assert!(message.contains("--features cuda"), "{message}");
    }
}
