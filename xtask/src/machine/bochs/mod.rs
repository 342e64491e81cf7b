//! Bochs: a machine whose BIOS has enabled TDX, and whose emulator logs every flush.
//!
//! What Bochs is told is pure; what starts it is below. Its files are in a directory of their own, which stays until another
//! machine of this kind is started after the process that started this one has ended: the log is what this rig is for.

mod log;

pub use super::follow::Follow;
pub use log::{Flush, Part, parts};

use super::command::{Config, shell_line};
use super::disk;
use super::ports::Ports;
use super::process::{KillOnDrop, spawn};
use super::serial::{Log, Show};
use super::{MAC, Started};
use crate::exit::{Exit, Failure};
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The program.
pub const BOCHS: &str = "bochs";

/// MKTME KeyIDs besides the TDX KeyIDs.
const MKTME_KEYIDS: u32 = 16;

/// Emulated instructions, and ticks of the TSC, a second and core: about what Bochs reaches here. With more, emulated time
/// would only be slower than the clients'; with less, it would be fast while a core has work and held back otherwise.
const IPS: u32 = 50_000_000;

/// What only Bochs has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bochs {
    /// How many TDX KeyIDs the BIOS has set aside. TDX is enabled by the BIOS where there are two or more.
    pub tdx_keyids: u32,
    /// Its processor.
    pub processor: Processor,
}

/// Which processor Bochs plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processor {
    /// A Tiger Lake, the newest that Bochs has a model of. Its MOVDIR64B is not there.
    #[default]
    TigerLake,
    /// One that says that it is a Sapphire Rapids, which has the partial-write erratum, and has no MOVDIR64B.
    PartialWriteErratum,
}

impl Processor {
    /// How `bochsrc` says it: the model, and lines of their own.
    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::TigerLake => ("tigerlake", ""),
            Self::PartialWriteErratum => (
                "bx_generic",
                "cpuid: level=6, x86_64=1, simd=avx2, apic=x2apic, 1g_pages=1, xsave=1, movbe=1\n\
                 cpuid: family=6, model=0x8f, stepping=8, vendor_string=\"GenuineIntel\"\n",
            ),
        }
    }
}

impl Default for Bochs {
    /// 32 TDX KeyIDs: TDX is enabled by the BIOS.
    fn default() -> Self {
        Self {
            tdx_keyids: 32,
            processor: Processor::default(),
        }
    }
}

/// Where a machine's files are.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    /// A directory that no other machine has. It need not exist.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(parent().join(format!("{}-{count}", std::process::id())))
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Bochs's log.
    pub fn log(&self) -> PathBuf {
        self.0.join("bochs.log")
    }

    fn serial(&self) -> PathBuf {
        self.0.join("serial")
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk.iso")
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

fn parent() -> PathBuf {
    workspace::out_dir().join("bochs")
}

/// Removes the files of machines whose process has ended.
fn tidy() {
    for entry in fs::read_dir(parent()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else may be tidying, too.
            _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Bochs {
    /// The text files that Bochs reads, with their paths: `bochsrc`, the model-specific registers, the network, the debugger.
    pub fn texts(&self, config: &Config, ports: Ports, files: &Files) -> [(String, String); 4] {
        [
            (files.at("bochsrc"), bochsrc(config, self.processor, files)),
            (files.at("msrs"), self.msrs()),
            (files.at("slirp.conf"), network(ports)),
            // Debian's Bochs has its debugger built in, which waits for a command before the first instruction.
            (files.at("debugger"), "c\n".to_owned()),
        ]
    }

    /// Address, type 0, and six words: value after reset (high, low), reserved bits, ignored bits. IA32_MKTME_KEYID_PARTITIONING
    /// (0x87): TDX KeyIDs in the upper half, MKTME KeyIDs in the lower one (Intel TDX Module Base Specification, "KeyID
    /// partitioning").
    fn msrs(&self) -> String {
        format!(
            "0x0087 0 {:08x} {MKTME_KEYIDS:08x} 00000000 00000000 00000000 00000000\n",
            self.tdx_keyids
        )
    }

    /// Bochs's arguments.
    pub fn arguments(files: &Files) -> [String; 5] {
        [
            "-q".to_owned(),
            "-f".to_owned(),
            files.at("bochsrc"),
            "-rc".to_owned(),
            files.at("debugger"),
        ]
    }

    /// Everything that would run, for a person to read or to try.
    pub fn describe(&self, config: &Config, ports: Ports, files: &Files) -> String {
        let mut text = String::new();
        for (path, content) in self.texts(config, ports, files) {
            text += &format!("# {path}\n{content}\n");
        }
        let disk = files.disk();
        let disk = disk.display();
        let (first_stage, image) = (config.first_stage.display(), config.image.display());
        text += &format!(
            "# {disk}: GRUB, {first_stage}, {image}\n# command line: {}\n",
            config.image_command_line()
        );
        text + &command_line(files)
    }

    /// Starts Bochs.
    ///
    /// # Errors
    /// If it is missing, or something that the boot medium needs (with the exit code for that), or a file cannot be written.
    pub fn launch(&self, config: &Config, ports: Ports) -> Result<Launched> {
        tidy();
        let files = Files::new();
        fs::create_dir_all(&files.0).with_context(|| format!("could not make {}", files.0.display()))?;
        for (path, content) in self.texts(config, ports, &files) {
            fs::write(&path, content).with_context(|| format!("could not write {path}"))?;
        }
        let disk = files.disk();
        disk::make(
            &disk,
            &config.first_stage,
            &config.image,
            &config.image_command_line(),
        )?;
        let mut command = Command::new(BOCHS);
        command
            .args(Self::arguments(&files))
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            // The debugger's prompts.
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = spawn(command).map_err(|e| {
            Failure::new(Exit::MissingProgram, format!("could not start {BOCHS}: {e}"))
                .hint("install it with: apt-get install bochs bochs-term bochsbios vgabios")
        })?;
        let stderr = child.stderr.take();
        let process = KillOnDrop::new(child);
        let Some(stderr) = stderr else {
            bail!("Bochs has no output")
        };
        let complaints = Log::collect(stderr, Show::Nowhere)?;
        Ok(Launched {
            process,
            started,
            serial: Follow::new(&files.serial(), complaints.clone()),
            complaints,
            files,
        })
    }

    pub(super) fn start(&self, config: &Config, ports: Ports, show: Show) -> Result<Started> {
        let launched = self.launch(config, ports)?;
        Ok(Started {
            process: launched.process,
            started: launched.started,
            command_line: command_line(&launched.files),
            serial: Log::collect(launched.serial, show)?,
            complaints: launched.complaints,
            log: Some(launched.files.log()),
        })
    }
}

/// Bochs, started.
#[derive(Debug)]
pub struct Launched {
    /// The emulator.
    pub process: KillOnDrop,
    /// When it was started.
    pub started: Instant,
    /// The machine's serial line.
    pub serial: Follow,
    /// What Bochs itself has to say.
    pub complaints: Log,
    /// Its files.
    pub files: Files,
}

/// Bochs runs on without a port that it could not have, and says so in its log before the BIOS's first line.
pub(super) fn refused_port(log: impl Read) -> Option<String> {
    for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if line.contains("host forwarding rule") {
            return Some(line.into_owned());
        }
        if line.contains("[BIOS") {
            break;
        }
    }
    None
}

fn command_line(files: &Files) -> String {
    format!("TERM=dumb {}", shell_line(BOCHS, &Bochs::arguments(files)))
}

fn bochsrc(config: &Config, processor: Processor, files: &Files) -> String {
    let (model, cpuid) = processor.text();
    let Config {
        cores, memory_mib, ..
    } = config;
    let flushes: String = (0..*cores).map(|core| format!(", cpu{core}=report")).collect();
    let (msrs, network) = (files.at("msrs"), files.at("slirp.conf"));
    let (disk, serial, log) = (files.disk(), files.serial(), files.log());
    let (disk, serial, log) = (disk.display(), serial.display(), log.display());
    // The display is a terminal that nobody looks at: the only one that opens no port and needs no window. Emulated time is
    // not faster than the clients' ("slowdown"), so that waiting takes the time that it should.
    format!(
        "display_library: term\n\
         config_interface: textconfig\n\
         plugin_ctrl: speaker=0\n\
         cpu: model={model}, count={cores}, ips={IPS}, reset_on_triple_fault=1, msrs=\"{msrs}\"\n\
         {cpuid}megs: {memory_mib}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         clock: sync=slowdown, time0=utc\n\
         pci: enabled=1, chipset=i440fx, slot1=e1000\n\
         e1000: enabled=1, mac={MAC}, ethmod=slirp, script={network}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path={disk}, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev={serial}\n\
         log: {log}\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=report\n\
         debug: action=ignore, serial=report{flushes}\n"
    )
}

/// The user-mode network. Its first line has to be this one.
fn network(ports: Ports) -> String {
    let Ports { http, echo, control } = ports;
    format!(
        "# slirp config\n\
         hostfwd = tcp:127.0.0.1:{http}-:80\n\
         hostfwd = udp:127.0.0.1:{echo}-:7\n\
         hostfwd = tcp:127.0.0.1:{control}-:7700\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_say_how_keyids_are_divided() {
        let text = |tdx_keyids| {
            Bochs {
                tdx_keyids,
                ..Bochs::default()
            }
            .msrs()
        };
        assert_eq!(
            text(32),
            "0x0087 0 00000020 00000010 00000000 00000000 00000000 00000000\n"
        );
        assert!(text(0).starts_with("0x0087 0 00000000 00000010 "));
    }

    #[test]
    fn a_port_that_is_taken_is_told_before_the_bios_begins() {
        const TAKEN: &str =
            "00000000000e[SLIRP0] could not set up host forwarding rule 'tcp:127.0.0.1:1001-:80'";
        const BIOS: &str = "00000004660i[BIOS  ] $Revision: 14314 $";
        let refused = |log: String| refused_port(std::io::Cursor::new(log));
        assert_eq!(refused(format!("one\n{TAKEN}\n{BIOS}\n")), Some(TAKEN.to_owned()));
        assert_eq!(refused(format!("one\n{BIOS}\n{TAKEN}\n")), None);
        assert_eq!(refused("it ended".to_owned()), None);
    }

    #[test]
    fn the_files_name_each_other_and_nothing_but_loopback() {
        let config = Config {
            cores: 3,
            ..Config::new("/out/first-stage".into(), "/out/hello.tar".into())
        };
        let ports = Ports {
            http: 1001,
            echo: 1002,
            control: 1003,
        };
        let files = Files(PathBuf::from("/out/bochs/1-0"));
        let text = Bochs::default().describe(&config, ports, &files);
        for line in [
            "cpu: model=tigerlake, count=3, ips=50000000, reset_on_triple_fault=1, msrs=\"/out/bochs/1-0/msrs\"",
            "debug: action=ignore, serial=report, cpu0=report, cpu1=report, cpu2=report",
            "hostfwd = udp:127.0.0.1:1002-:7",
            "# command line: instar.flush=auto",
            "TERM=dumb bochs -q -f /out/bochs/1-0/bochsrc -rc /out/bochs/1-0/debugger",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let forwards = text.lines().filter(|line| line.starts_with("hostfwd"));
        assert!(forwards.clone().count() == 3 && forwards.clone().all(|line| line.contains(":127.0.0.1:")));
    }
}
