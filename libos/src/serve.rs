//! The first task of an instar: network, application, control plane, telemetry; and, for a successor, the end of the
//! replacement that brought it here.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use log::{error, info, warn};
use smoltcp::wire::Ipv4Cidr;

use crate::clock::Clock;
use crate::command_line::{AddressSource, CommandLine};
use crate::cpu::{CoreId, current, random, time};
use crate::device::{network, serial};
use crate::net::{self, Addressing, Configuration, Limits, Shared, Stack, Timer};
use crate::replace::{control, machine::Machine, successor};
use crate::start::{Start, application, identity};
use crate::task::{sleep, spawn, spawn_on};
use crate::telemetry;

/// Runs the instar: first what answers the network, then all the rest.
pub(crate) async fn run(mut start: Start) {
    let network_start = time::now();
    let inherited = start.predecessor.as_mut().and_then(|handover| handover.network_configuration());
    match bring_up(&start.options, inherited) {
        Ok(network) => {
            spawn(application().run()).detach();
            spawn(manage(start, network, network_start)).detach();
        }
        Err(problem) => {
            error!("no network: {problem}");
            application().run().await;
        }
    }
}

/// Control plane, telemetry, reports.
async fn manage(mut start: Start, network: &'static Shared, network_start: time::Instant) {
    let configuration = network.configured().await;
    let network_up = time::now();
    all_online().await;
    // Verifying and loading an image are work: not on the core that moves the packets, if there is another.
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    spawn_on(last, async move {
        let machine = control::install(&start, configuration.mac);
        spawn(control::serve(machine)).detach();
        telemetry::push::start(&start, machine);
        announce(&start, machine, &configuration);
        if let Some(handover) = start.predecessor.take() {
            let moments = successor::Moments {
                entered: start.entered,
                cores: (start.cores_called, current::last_online()),
                network: (network_start, network_up),
            };
            successor::finish(machine, handover, moments).await;
        }
    })
    .detach();
}

/// Until every core runs, or has had a second to.
async fn all_online() {
    let deadline = time::now() + Duration::from_secs(1);
    while current::online().len() < current::all().len() && time::now() < deadline {
        sleep(Duration::from_micros(200)).await;
    }
}

fn announce(start: &Start, machine: &Machine, configuration: &Configuration) {
    let online = current::online().len();
    if online < current::all().len() {
        error!("{online} of {} cores answered", current::all().len());
    }
    for ignored in &start.options.ignored {
        warn!("command line: {} is ignored: {}", ignored.word, ignored.reason);
    }
    if random::source() == random::Source::Clock {
        warn!("no RDSEED and no RDRAND: random numbers can be guessed");
    }
    let Configuration { address, prefix, .. } = configuration;
    info!("network {address}/{prefix}, {online} cores, {}", machine.flush_decision().why());
    let (image, generation) = (&identity().manifest, identity().generation);
    serial::write(format_args!(
        "instar: serving generation={generation} image={} version={} cores={online}",
        image.name, image.version,
    ));
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
