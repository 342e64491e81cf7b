//! `measure`.

use crate::control;
use crate::exit::{Exit, Failure};
use crate::http::Limits;
use crate::image::{Image, hex};
use crate::measure;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// The images: .tar files that `build-app` made; without --machine in the order in which they ran
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Say which of the images this machine has run since its cold boot; exit code 1 if others ran, or it is not known
    #[arg(long, value_name = "ADDR")]
    machine: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> Result<Exit> {
    let address = options.machine.as_deref().map(control::parse_address);
    let address = address.transpose()?;
    let mut digests = Vec::new();
    for path in &options.images {
        let image = Image::read(path)?;
        // The chain holds manifests: a file whose ELF is another one has not run, whatever its manifest says.
        if !image.has_the_elf_of_its_manifest() {
            let what = format!("{}: its ELF is not the one of its manifest", path.display());
            return Err(Failure::new(Exit::Usage, what).hint("build it again").into());
        }
        digests.push(measure::digest(&image));
    }
    match address {
        None => print_chain(&options, &digests),
        Some(address) => compare(&options, address, &digests),
    }
}

fn print_chain(options: &Options, digests: &[[u8; 48]]) -> Result<Exit> {
    let mut value = measure::START;
    let mut rows = Vec::new();
    for (path, digest) in options.images.iter().zip(digests) {
        value = measure::extend(value, digest);
        rows.push(json!({"image": path, "sha384": hex(digest), "chain": hex(&value)}));
        if !options.json {
            println!("{}  {}", hex(digest), path.display());
        }
    }
    if options.json {
        println!("{}", json!({"chain": hex(&value), "images": rows}));
    } else {
        println!("{}  the chain after these, in this order", hex(&value));
    }
    Ok(Exit::Ok)
}

fn compare(options: &Options, address: std::net::SocketAddr, digests: &[[u8; 48]]) -> Result<Exit> {
    let doing = format!("asking {address} what it has run");
    let told = control::measurements(address, Limits::patient()).map_err(|e| e.during(&doing))?;
    let verdict = measure::check(&told, digests)?;
    let name = |file: Option<usize>| file.and_then(|index| options.images.get(index));
    if options.json {
        let events: Vec<_> = told
            .events
            .iter()
            .zip(&verdict.files)
            .map(|(event, file)| json!({"event": event, "image": name(*file)}))
            .collect();
        println!(
            "{}",
            json!({"chain": told.chain, "events": events, "complete": verdict.is_complete()})
        );
    } else {
        println!("{}  the machine's chain, which its list explains", told.chain);
        for (event, file) in told.events.iter().zip(&verdict.files) {
            let file = name(*file).map_or("NONE OF THESE IMAGES".to_owned(), |path| {
                path.display().to_string()
            });
            println!(
                "{}  generation {}: {} {}: {file}",
                event.sha384, event.generation, event.name, event.version
            );
        }
        if !verdict.from_cold_boot {
            println!("the list does not reach back to the cold boot: what ran before it is not known");
        }
    }
    Ok(if verdict.is_complete() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}
