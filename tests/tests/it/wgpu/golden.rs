//! Logits, losses, gradients and running statistics against torchvision, within ten times what is asked of the CPU.

use super::engine;
use crate::golden::{mobile_networks, residual_networks, vgg};

#[test]
fn residual() {
    engine().iter().for_each(residual_networks);
}

#[test]
fn mobile() {
    engine().iter().for_each(|engine| mobile_networks(engine, &[]));
}

#[test]
fn vgg16() {
    engine().iter().for_each(|engine| vgg(engine, &[]));
}
