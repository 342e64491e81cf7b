//! `GET /metrics`: the machine's numbers, for whoever comes and asks.

use super::percent::hex;
use super::prometheus::{Build, Format, exposition};
use super::resource::{Identity, resource};
use super::settings::Settings;
use super::{Resource, sink, snapshot};
use crate::confidential;
use crate::http::{Request, Response};
use crate::replace::machine::Machine;
use crate::start::identity;

/// The page, in the format that the client likes best.
pub(crate) fn scrape(machine: &Machine, request: &Request) -> Response {
    let accept = request.header("accept").unwrap_or_default();
    let format = Format::negotiate(core::str::from_utf8(accept).unwrap_or_default());
    let (own, application) = snapshot::gather(machine, sink::counters());
    let image = &identity().manifest();
    let build = Build {
        name: &image.name,
        version: &image.version,
        revision: &image.revision,
    };
    let page = exposition(format, build, &who(machine), &[&own, &application]);
    Response::bytes(200, format.content_type(), page.into_bytes())
}

/// Who tells: the same attributes that a collector is sent, whether there is one or not.
fn who(machine: &Machine) -> Resource {
    let image = identity().manifest();
    // The log has told what is wrong with them, if anything is.
    let settings = Settings::read(&machine.options().telemetry, &image.environment);
    resource(&Identity {
        service_name: &settings.service_name,
        image_name: &image.name,
        image_version: &image.version,
        revision: &image.revision,
        instance_id: identity().instance_id,
        generation: identity().generation.into(),
        host_id: machine.host_id(),
        measurement: &hex(&machine.measurement().0),
        platform: confidential::platform(),
        tdx_module: confidential::tdx_module(),
        attributes: &settings.attributes,
    })
}
