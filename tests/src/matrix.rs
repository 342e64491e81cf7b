//! The cells of the fault matrix: what a successor does, when, and what is expected of it; and the table of what was seen.

use crate::image::Parts;
use minisign::SecretKey;
use std::{fmt::Write, fs, path::PathBuf};

/// What a successor, or its hardware, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A panic.
    Panic,
    /// A page fault.
    PageFault,
    /// A general protection fault.
    GeneralProtection,
    /// A double fault.
    DoubleFault,
    /// A stack that overflows into its guard.
    Overflow,
    /// A machine check, made from outside.
    MachineCheck,
    /// A loop with interrupts on.
    Hang,
    /// A loop with interrupts off.
    Deaf,
    /// No network card.
    NoCard,
    /// A network that never comes up.
    NoNetwork,
    /// The application says that it is not well.
    Unhealthy,
    /// The application never says that it is well.
    Late,
    /// A loop in an NMI's handler: not part of the matrix, since it ends with a reset.
    Dead,
    /// A triple fault: neither.
    Shutdown,
}

use Kind::{
    Dead, Deaf, DoubleFault, GeneralProtection, Hang, Late, MachineCheck, NoCard, NoNetwork, Overflow,
    PageFault, Panic, Shutdown, Unhealthy,
};

/// The matrix's rows.
const KINDS: [Kind; 12] = [
    Panic,
    PageFault,
    GeneralProtection,
    DoubleFault,
    Overflow,
    MachineCheck,
    Hang,
    Deaf,
    NoCard,
    NoNetwork,
    Unhealthy,
    Late,
];

impl Kind {
    /// As in a version (`libos/src/trial.rs`).
    fn word(self) -> &'static str {
        match self {
            Panic => "panic",
            PageFault => "fault",
            GeneralProtection => "gp",
            DoubleFault => "double",
            Overflow => "overflow",
            // The core waits for it.
            MachineCheck | Hang => "hang",
            Deaf => "deaf",
            NoCard => "no-card",
            NoNetwork => "no-network",
            Unhealthy => "unhealthy",
            Late => "late",
            Dead => "dead",
            Shutdown => "shutdown",
        }
    }

    /// For a person.
    fn name(self) -> &'static str {
        match self {
            Panic => "panic",
            PageFault => "page fault",
            GeneralProtection => "general protection",
            DoubleFault => "double fault",
            Overflow => "stack overflow",
            MachineCheck => "machine check",
            Hang => "hang, interrupts on",
            Deaf => "hang, interrupts off",
            NoCard => "no network card",
            NoNetwork => "network never up",
            Unhealthy => "application not well",
            Late => "application never well",
            Dead => "hang, NMIs off",
            Shutdown => "triple fault",
        }
    }
}

/// When, in the order of a successor's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has run yet.
    FirstInstruction,
    /// Before the machine's memory is its own: the predecessor's page tables and the pen's handlers.
    BeforeHeap,
    /// Its first task runs.
    BeforeNetwork,
    /// The network is up; another core has been called and is not online.
    BeforeCores,
    /// It serves.
    After,
    /// It has been found well.
    BeforeCommit,
}

use Phase::{After, BeforeCommit, BeforeCores, BeforeHeap, BeforeNetwork, FirstInstruction};

const PHASES: [Phase; 6] = [
    FirstInstruction,
    BeforeHeap,
    BeforeNetwork,
    BeforeCores,
    After,
    BeforeCommit,
];

impl Phase {
    fn word(self) -> &'static str {
        match self {
            FirstInstruction => "first",
            BeforeHeap => "before-heap",
            BeforeNetwork => "before-network",
            BeforeCores => "before-cores",
            After => "after",
            BeforeCommit => "before-commit",
        }
    }

    fn name(self) -> &'static str {
        match self {
            FirstInstruction => "first instruction",
            BeforeHeap => "before the heap",
            BeforeNetwork => "before the network",
            BeforeCores => "before the cores are up",
            After => "after",
            BeforeCommit => "just before commit",
        }
    }
}

/// Why a cell is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Impossible {
    NoCode,
    NoGuard,
    OneCore,
    OtherMoment,
}

impl Impossible {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::NoCode, "a", "Nothing of Rust runs yet that could panic."),
        (
            Self::NoGuard,
            "b",
            "The first stack has no guard: it lies behind the image and runs into the image's own memory, where nobody can say \
             what happens. It is in use until the first task.",
        ),
        (Self::OneCore, "c", "Only the first core runs."),
        (Self::OtherMoment, "d", "It belongs to one moment."),
    ];
}

/// One failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What.
    pub kind: Kind,
    /// When.
    pub phase: Phase,
    /// On which core.
    pub core: u32,
}

impl Cell {
    fn impossible(self) -> Option<Impossible> {
        let other = self.core != 0;
        Some(match (self.kind, self.phase) {
            (NoCard | NoNetwork, phase) if phase != BeforeNetwork => Impossible::OtherMoment,
            (Unhealthy | Late, phase) if phase != BeforeCommit => Impossible::OtherMoment,
            (NoCard | NoNetwork | Unhealthy | Late, _) if other => Impossible::OtherMoment,
            (_, FirstInstruction | BeforeHeap | BeforeNetwork) if other => Impossible::OneCore,
            (Panic, FirstInstruction) => Impossible::NoCode,
            (Overflow, FirstInstruction | BeforeHeap) => Impossible::NoGuard,
            _ => return None,
        })
    }

    /// The version that makes an image fail so. It differs from cell to cell.
    #[must_use]
    pub fn version(self) -> String {
        let Self { kind, phase, core } = self;
        // Digits before the hyphen tell apart what the library OS does alike.
        let number = KINDS.iter().position(|it| *it == kind).unwrap_or_default();
        let core = if core == 0 {
            String::new()
        } else {
            format!(".{core}")
        };
        format!("1.2.{number}-{}.{}{core}", kind.word(), phase.word())
    }

    /// The image.
    #[must_use]
    pub fn image(self, elf: &[u8], key: &SecretKey) -> Vec<u8> {
        let mut elf = elf.to_vec();
        if self.phase == FirstInstruction {
            patch_entry(&mut elf, self.kind.code());
        }
        Parts::signed(&elf, &self.version(), key).pack()
    }

    /// Whether this is what it is noticed by.
    #[must_use]
    pub fn expects(self, cause: &str, text: &str) -> bool {
        // The pen's handlers say no words.
        let silent = matches!(self.phase, FirstInstruction | BeforeHeap);
        let (expected, words) = match (self.kind, self.phase) {
            // Never online: nobody looks at it but who counts.
            (Hang | Deaf, BeforeCores) if self.core != 0 => ("unhealthy", "3 of 4 cores came"),
            (Panic, _) => ("panic", "as the version says"),
            (PageFault, _) => ("fault", "nothing is mapped there"),
            (GeneralProtection, _) => ("fault", "general protection (vector 13"),
            (DoubleFault, _) => ("fault", "double fault (vector 8"),
            (Overflow, _) => ("fault", "a stack overflow: this is a stack's guard page"),
            (MachineCheck, _) => ("machine-check", "bank 3 has error code 0x"),
            (Hang | Deaf, _) => ("hang", "has not come back to its tasks for"),
            (NoCard, _) => ("unhealthy", "no network card was found"),
            (Unhealthy, _) => ("unhealthy", "as the version says"),
            (NoNetwork | Late, _) => ("deadline", "it was not committed in time"),
            (Dead | Shutdown, _) => return false,
        };
        cause == expected && (silent && self.kind != Panic || text.contains(words))
    }
}

impl Kind {
    /// Instructions that do it, on the pen's tables with nothing of the image's own.
    fn code(self) -> &'static [u8] {
        match self {
            // mov rax, 0x7f0000000000; mov [rax], al
            PageFault => &[0x48, 0xb8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0x88, 0x00],
            // mov rax, 1 << 63; mov [rax], al
            GeneralProtection => &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x88, 0x00],
            // sidt [rsp]; mov rsi, [rsp + 2]; lea rdi, [rsp + 64]; mov ecx, 4096; cld; rep movsb (the IDT is copied onto the
            // stack); and byte ptr [rsp + 64 + 13 * 16 + 5], 0x7f (its gate of #GP is not present); lea rax, [rsp + 64];
            // mov [rsp + 2], rax; lidt [rsp]; mov rax, 1 << 63; mov [rax], al
            DoubleFault => &[
                0x0f, 0x01, 0x0c, 0x24, 0x48, 0x8b, 0x74, 0x24, 0x02, 0x48, 0x8d, 0x7c, 0x24, 0x40, 0xb9,
                0x00, 0x10, 0x00, 0x00, 0xfc, 0xf3, 0xa4, 0x80, 0xa4, 0x24, 0x15, 0x01, 0x00, 0x00, 0x7f,
                0x48, 0x8d, 0x44, 0x24, 0x40, 0x48, 0x89, 0x44, 0x24, 0x02, 0x0f, 0x01, 0x1c, 0x24, 0x48,
                0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x88, 0x00,
            ],
            // sti; jmp $
            Hang => &[0xfb, 0xeb, 0xfe],
            // jmp $
            _ => &[0xeb, 0xfe],
        }
    }
}

/// Puts `code` where the image is entered.
///
/// # Panics
/// If the ELF has no mark there.
pub fn patch_entry(elf: &mut [u8], code: &[u8]) {
    let mark = b"\x0f\x1f\x80ENTR";
    let entry = elf
        .windows(mark.len())
        .position(|bytes| bytes == mark)
        .expect("the entry's mark");
    elf[entry..entry + code.len()].copy_from_slice(code);
}

/// All cells of a machine with so many cores. The other core is the last but one, which does nothing else.
#[must_use]
pub fn cells(cores: u32) -> Vec<Cell> {
    let on: &[u32] = if cores == 1 { &[0] } else { &[0, OTHER] };
    let all = KINDS
        .iter()
        .flat_map(|kind| PHASES.iter().map(move |phase| (*kind, *phase)));
    all.flat_map(|(kind, phase)| {
        on.iter().map(move |core| Cell {
            kind,
            phase,
            core: *core,
        })
    })
    .filter(|cell| cell.impossible().is_none())
    .collect()
}

const OTHER: u32 = 2;

/// How a cell ended.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub cell: Cell,
    /// Of how many cores.
    pub cores: u32,
    /// What it was noticed by: `error.type`.
    pub cause: String,
    /// From there until the predecessor served, in milliseconds.
    pub recovery: f64,
}

/// The table in Markdown.
fn table(seen: &[Seen]) -> String {
    let mut text = String::from(
        "| what | when | 1 core | 4 cores, on the first | 4 cores, on another |\n|---|---|---|---|---|\n",
    );
    for kind in KINDS {
        for phase in PHASES {
            let columns = [(1, 0), (4, 0), (4, OTHER)].map(|(cores, core)| {
                let cell = Cell { kind, phase, core };
                if let Some(why) = cell.impossible() {
                    let (_, letter, _) = Impossible::ALL[why as usize];
                    return (false, format!("({letter})"));
                }
                match seen.iter().find(|seen| seen.cell == cell && seen.cores == cores) {
                    Some(seen) => (true, format!("{}, {:.0} ms", seen.cause, seen.recovery.max(1.0))),
                    None => (true, "not seen".into()),
                }
            });
            // A row of which nothing can be is none, but for those that somebody would look for.
            if columns.iter().all(|(possible, _)| !possible) && !matches!(kind, Panic | Overflow) {
                continue;
            }
            let [one, first, other] = columns.map(|(_, text)| text);
            let _ = writeln!(
                text,
                "| {} | {} | {one} | {first} | {other} |",
                kind.name(),
                phase.name()
            );
        }
    }
    text.push('\n');
    for (_, letter, why) in Impossible::ALL {
        let _ = writeln!(text, "- ({letter}) {why}");
    }
    text
}

const BEGIN: &str = "<!-- fault matrix: written by tests/tests/matrix.rs -->\n";
const END: &str = "<!-- end of the fault matrix -->\n";

/// Compares the table with the document's, or writes it there if `INSTAR_WRITE_TABLES` is set.
///
/// # Panics
/// If they differ in more than milliseconds.
pub fn compare_with_document(seen: &[Seen]) {
    let path: PathBuf = xtask::workspace::root().join("docs/way-back.md");
    let document = fs::read_to_string(&path).expect("docs/way-back.md");
    let (head, rest) = document.split_once(BEGIN).expect("the table's begin");
    let (old, tail) = rest.split_once(END).expect("the table's end");
    let new = table(seen);
    if std::env::var_os("INSTAR_WRITE_TABLES").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{new}{END}{tail}")).expect("docs/way-back.md is written");
        return;
    }
    assert_eq!(
        without_times(old),
        without_times(&new),
        "docs/way-back.md is not what was seen; INSTAR_WRITE_TABLES=1 writes it"
    );
}

fn without_times(table: &str) -> String {
    let words: Vec<&str> = table.split(' ').collect();
    let is_time = |at: usize| words.get(at + 1) == Some(&"ms") && words[at].parse::<f64>().is_ok();
    let kept = (0..words.len()).filter(|at| !is_time(*at));
    kept.map(|at| words[at]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_may_differ() {
        let seen = |cause: &str, recovery| {
            let cell = cells(1)[0];
            let cause = cause.into();
            [Seen {
                cell,
                cores: 1,
                cause,
                recovery,
            }]
        };
        let times = |seen: &[Seen]| without_times(&table(seen));
        assert_eq!(times(&seen("panic", 3.0)), times(&seen("panic", 8.4)));
        assert_ne!(times(&seen("panic", 3.0)), times(&seen("hang", 3.0)));
        assert!(table(&seen("panic", 3.0)).contains("| panic, 3 ms |"));
    }

    #[test]
    fn versions_tell_cells_apart() {
        let mut versions: Vec<_> = cells(4).into_iter().map(Cell::version).collect();
        let count = versions.len();
        versions.sort();
        versions.dedup();
        assert_eq!(versions.len(), count);
        assert!(versions.iter().all(|version| version.len() <= 64));
    }
}
