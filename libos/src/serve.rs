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
use crate::confidential;
use crate::cpu::pen::{Cause, Moment};
use crate::cpu::{CoreId, current, machine_check, random, remind_others, start_others, stop, time};
use crate::device::{network, serial};
use crate::net::{self, Addressing, Configuration, Limits, Shared, Stack, Timer};
use crate::replace::handover::{self, Essentials, Handover};
use crate::replace::{control, machine::Machine, probation, successor};
use crate::start::panic::last_words;
use crate::start::{Start, application, handover_record, identity};
use crate::task::{sleep, spawn, spawn_on, yield_now};
use crate::telemetry;

/// Runs the instar: first what answers the network, then all the rest.
pub(crate) async fn run(start: Start) {
    let network_start = time::now();
    successor::mark(Moment::NetworkStart, network_start);
    #[cfg(feature = "trial")]
    crate::trial::before_network().await;
    match bring_up(&start.options, start.predecessor.as_ref()) {
        Ok(network) => {
            // At a cold boot nobody waits for an answer; a successor calls the cores when it has given one.
            if start.predecessor.is_none() {
                call_others();
            }
            spawn(application().run()).detach();
            spawn(manage(start, network, network_start)).detach();
        }
        // The predecessor had one.
        Err(problem) if probation::is_on_trial() => {
            let text = format_args!("no network: {problem}");
            last_words(Cause::Unhealthy, text, text)
        }
        Err(problem) => {
            error!("no network: {problem}");
            call_others();
            confidential::announce();
            application().run().await;
        }
    }
}

/// Control plane, telemetry, reports.
async fn manage(start: Start, network: &'static Shared, network_start: time::Instant) {
    let configuration = network.configured().await;
    let network_up = time::now();
    successor::mark(Moment::NetworkUp, network_up);
    let mut cores_called = network_up;
    if start.predecessor.is_some() {
        first_things_first(network).await;
        #[cfg(feature = "trial")]
        crate::trial::point(crate::trial::Phase::BeforeCores);
        cores_called = time::now();
        successor::mark(Moment::CoresCalled, cores_called);
        call_others();
    }
    all_online().await;
    if current::online().len() == current::all().len() {
        successor::mark(Moment::CoresOnline, current::last_online());
    }
    // Verifying and loading an image are work: not on the core that moves the packets, if there is another.
    let last = current::online().iter().last().unwrap_or(CoreId::BOOT);
    spawn_on(last, async move {
        let handover = handover(&start);
        if let Some(handover) = &handover {
            telemetry::upgrade::begins(&handover.timeline);
        }
        // Where nobody waits for it: it may be a call into firmware.
        confidential::tdx_module();
        let machine = control::install(&start, handover.as_ref(), configuration.mac);
        spawn(control::serve(machine)).detach();
        telemetry::start(&start, handover.as_ref(), machine);
        announce(&start, machine, &configuration);
        spawn(watch_hardware()).detach();
        if start.predecessor.is_some() {
            let moments = successor::Moments {
                entered: start.entered,
                cores: (cores_called, current::last_online()),
                network: (network_start, network_up),
            };
            successor::finish(machine, handover, &moments).await;
        }
    })
    .detach();
}

/// Tells of machine checks: their handler only counts.
async fn watch_hardware() {
    loop {
        machine_check::report();
        sleep(Duration::from_secs(1)).await;
    }
}

/// All that the predecessor left. If it cannot be read, this instar serves on without the story of how it came to be.
fn handover(start: &Start) -> Option<Handover> {
    let record = handover_record(&start.parameters)?;
    handover::decode(record)
        .inspect_err(|error| error!("the predecessor's handover record is damaged: {error}"))
        .ok()
}

/// Until somebody who waited through the blackout has been answered, or 10 ms have passed. The other cores would only take
/// time from the one that answers, wherever cores share something: caches, or an emulator's host.
async fn first_things_first(network: &Shared) {
    let deadline = time::now() + Duration::from_millis(10);
    while network.first_answer().is_none() && time::now() < deadline {
        sleep(Duration::from_micros(200)).await;
    }
}

/// Calls all other cores out of the pen.
fn call_others() {
    if let Some(pen) = stop::pen() {
        start_others(pen);
    }
}

/// Until every core runs, or has had a second to.
async fn all_online() {
    let deadline = time::now() + Duration::from_secs(1);
    while current::online().len() < current::all().len() && time::now() < deadline {
        sleep(Duration::from_micros(500)).await;
        if let Some(pen) = stop::pen() {
            remind_others(pen);
        }
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
    confidential::announce();
    info!(
        "network {address}/{prefix}, {online} cores, {}",
        machine.flush_decision().why()
    );
    let (image, generation) = (&identity().manifest(), identity().generation);
    serial::write(format_args!(
        "instar: serving generation={generation} image={} version={} cores={online}",
        image.name, image.version,
    ));
}

fn bring_up(options: &CommandLine, predecessor: Option<&Essentials>) -> Result<&'static Shared, Problem> {
    #[cfg(feature = "trial")]
    if crate::trial::has_no_card() {
        return Err(network::NetworkError::NotFound.into());
    }
    let nic = network::init()?;
    let inherited = predecessor.and_then(Essentials::network_configuration);
    let addressing = match (inherited, options.address) {
        (Some(configuration), _) => Addressing::Handover(configuration),
        (None, AddressSource::Dhcp) => Addressing::Dhcp,
        (None, AddressSource::Static { address, prefix }) => Addressing::Static {
            address: Ipv4Cidr::new(address, prefix),
            gateway: options.gateway,
            dns: options.dns.into_iter().collect::<Vec<Ipv4Addr>>(),
        },
    };
    let stack = Stack::new(
        &nic,
        nic.mac(),
        addressing,
        Limits::default(),
        random::number(),
        Clock.now(),
    )?;
    if !nic.has_interrupts() {
        warn!(
            "the network card does not interrupt (only virtio with MSI-X does): it is asked every millisecond"
        );
        spawn(async {
            loop {
                sleep(Duration::from_millis(1)).await;
                network::on_interrupt();
            }
        })
        .detach();
    }
    let network: &'static Shared = Box::leak(Box::new(Shared::new(stack)));
    if let Some(predecessor) = predecessor {
        network.leave_alone(predecessor.kept());
    }
    net::install(network);
    spawn(async move {
        // The application's tasks come first: whoever asked during the blackout is waiting in the card, and must find the
        // ports bound.
        for _ in 0..8 {
            yield_now().await;
        }
        net::run(network, nic, Clock).await;
    })
    .detach();
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
