//! What `/v1/status` says.

use alloc::string::String;
use super::machine::Machine;
use super::stage::Staged;

/// An image that is staged.
#[derive(serde::Serialize)]
pub(super) struct StagedReport { name: String }

pub(super) fn staged(staged: &Staged) -> StagedReport { StagedReport { name: staged.manifest.name.clone() } }

pub(super) fn status(_: &Machine) -> String { "{}".into() }
