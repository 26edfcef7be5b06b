//! The backend of the tests.

use burn::tensor::Device;

/// The plain CPU device: data, masks, frozen models.
pub fn device() -> Device {
    Device::flex()
}

/// The recording CPU device: models under training.
pub fn train_device() -> Device {
    device().autodiff()
}
