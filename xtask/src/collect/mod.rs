//! A collector for those who have none: OTLP/HTTP in; a web page, a live view in a terminal, readable lines or JSON out.
//!
//! Decoded with the official message types, so that what it understands, any collector understands. It keeps what it
//! received in memory, within bounds, and answers questions about it: the demo and the machine tests ask. On request it
//! misbehaves ([`Fault`]).
//!
//! | module | what |
//! |---|---|
//! | [`received`] | what came in, and questions about it |
//! | [`trace`] | spans put together to one upgrade |
//! | [`fault`] | ways to misbehave |
//! | `fleet`, `upgrade` | machines and upgrades, put together for people, within bounds of their own |
//! | `page`, `api` | the web page, and what it asks |
//! | `live` | the view in a terminal |

pub mod fault;
pub mod received;
pub mod trace;

mod answer;
mod api;
#[cfg(test)]
mod api_tests;
mod decode;
#[cfg(test)]
mod fault_tests;
mod fleet;
mod http;
mod live;
mod page;
#[cfg(test)]
mod page_tests;
mod server;
mod show;
#[cfg(test)]
mod tests;
mod upgrade;

pub use fault::Fault;
pub use received::{Arrival, Counts, Item, Log, Point, Received, Source, Span};
pub use server::Collector;
pub use trace::Trace;

use anyhow::Result;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// The options of `cargo xtask collect`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4318")]
    pub listen: String,
    /// One JSON object a line for each span, log record and metric point
    #[arg(long)]
    pub json: bool,
    /// Lines as they come, also in a terminal, where else there is a live view
    #[arg(long)]
    pub plain: bool,
}

/// The verb: shows what comes in, until it is ended. The first line says where it listens.
pub fn main(options: &Options) -> Result<()> {
    let collector = Collector::start(&options.listen)?;
    if !options.json && !options.plain && std::io::stdout().is_terminal() {
        return live::main(&collector);
    }
    let mut show = show::Show::new(options.json);
    let mut out = std::io::stdout().lock();
    show.listening(&mut out, collector.address())?;
    let mut next = 0;
    let mut news = false;
    loop {
        let items = collector.items_since(&mut next, Duration::from_millis(500));
        let mut written = show.items(&mut out, &items);
        // After half a second of silence, what is complete is taken to be all there is.
        if items.is_empty() && std::mem::take(&mut news) {
            let traces = collector.with(Received::traces);
            written = written.and_then(|()| show.traces(&mut out, traces));
        }
        news |= !items.is_empty();
        match written.and_then(|()| out.flush()) {
            // Whoever read our output has enough of it: `collect | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}
