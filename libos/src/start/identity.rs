//! Who this instar is.

use alloc::string::String;

use loader::boot::OwnedParameters;
use loader::manifest::Manifest;

use crate::command_line::CommandLine;
use crate::cpu::random;
use crate::replace::handover::Essentials;
use crate::telemetry::resource;

/// Who this instar is: the same from its first task to its last.
#[derive(Debug)]
pub struct Identity {
    manifest_text: String,
    manifest: spin::Once<Manifest>,
    /// 1 at cold boot, then one more with each replacement.
    pub generation: u32,
    /// A UUID, new for each instar.
    pub instance_id: [u8; 16],
    /// What orders call this machine, if the command line says; otherwise it is the network card's address.
    pub host_id: Option<String>,
}

static IDENTITY: spin::Once<Identity> = spin::Once::new();

/// Who this instar is.
///
/// # Panics
/// Before the first task runs.
pub fn identity() -> &'static Identity {
    IDENTITY.get().expect("set before the first task runs")
}

impl Identity {
    /// The image. Read when it is first asked for: a successor has more urgent things to do.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.call_once(|| {
            Manifest::parse(self.manifest_text.as_bytes())
                .unwrap_or_else(|error| panic!("the loader gave a manifest that cannot be read: {error}"))
        })
    }
}

pub(super) fn set(parameters: &OwnedParameters, options: &CommandLine, predecessor: Option<&Essentials>) {
    IDENTITY.call_once(|| Identity {
        manifest_text: parameters.manifest.clone(),
        manifest: spin::Once::new(),
        generation: predecessor.map_or(1, |handover| handover.generation + 1),
        instance_id: resource::uuid_v4(random::bytes()),
        host_id: options.host_id.clone(),
    });
}
