//! Between the handover record and the running instar.

use alloc::vec::Vec;

use super::handover::Handover;
use super::machine::Machine;
use super::timeline::{Phase, Timeline};
use crate::cpu::time::{Calibration, Instant};
use crate::net::Configuration;

impl Handover {
    /// stub
    pub fn clock(&self) -> Calibration { todo!() }
    /// stub
    pub fn network_configuration(&self) -> Option<Configuration> { None }
    /// stub
    pub(super) fn compose(_: &Machine, _: &Timeline, _: Instant) -> Self { todo!() }
}
