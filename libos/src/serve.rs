//! The first task of an instar: network, application, control plane, telemetry; and, for a successor, the end of the
//! replacement that brought it here.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use log::{error, info};
use smoltcp::wire::Ipv4Cidr;

use crate::clock::Clock;
use crate::command_line::{AddressSource, CommandLine};
use crate::cpu::{CoreId, current, random, time};
use crate::device::network;
use crate::net::{self, Addressing, Configuration, Limits, Shared, Stack, Timer};
use crate::replace::{control, successor};
use crate::start::{Start, application, identity};
use crate::task::{spawn, spawn_on};
use crate::telemetry;

/// Runs the instar.
pub(crate) async fn run(mut start: Start) {
    let network_start = time::now();
    let inherited = start.predecessor.as_mut().and_then(|handover| handover.network_configuration());
    let network = match bring_up(&start.options, inherited) {
        Ok(network) => network,
        Err(problem) => {
            error!("no network: {problem}");
            application().run().await;
            return;
        }
    };
    spawn(application().run()).detach();
    let configuration = network.configured().await;
    let network_up = time::now();

    let machine = control::install(&start, configuration.mac);
    // Verifying and loading an image are work: not on the core that moves the packets, if there is another.
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    spawn_on(last, control::serve(machine)).detach();
    telemetry::push::start(&start, machine);

    let Configuration { address, prefix, .. } = configuration;
    let image = &identity().manifest;
    info!("network {address}/{prefix}, {} cores, {}", current::online().len(), machine.flush_decision().why());
    crate::device::serial::write(format_args!(
        "instar: serving generation={} image={} version={} cores={}",
        identity().generation,
        image.name,
        image.version,
        current::online().len(),
    ));
    if let Some(handover) = start.predecessor.take() {
        let moments = successor::Moments {
            entered: start.entered,
            cores_woken: start.cores_woken,
            network: (network_start, network_up),
        };
        spawn(successor::finish(machine, handover, moments)).detach();
    }
}

fn bring_up(options: &CommandLine, inherited: Option<Configuration>) -> Result<&'static Shared, Problem> {
    let nic = network::init()?;
    let addressing = match (inherited, options.address) {
        (Some(configuration), _) => Addressing::Handover(configuration),
        (None, AddressSource::Dhcp) => Addressing::Dhcp,
        (None, AddressSource::Static { address, prefix }) => Addressing::Static {
            address: Ipv4Cidr::new(address, prefix),
            gateway: options.gateway,
            dns: options.dns.into_iter().collect::<Vec<Ipv4Addr>>(),
        },
    };
    let stack = Stack::new(&nic, nic.mac(), addressing, Limits::default(), random::number(), Clock.now())?;
    let network: &'static Shared = Box::leak(Box::new(Shared::new(stack)));
    net::install(network);
    spawn(net::run(network, nic, Clock)).detach();
    Ok(network)
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Card(#[from] network::NetworkError),
    #[error("{0}")]
    Configuration(#[from] net::ConfigurationError),
}
