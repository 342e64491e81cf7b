//! What a person is told when a request is refused (`docs/interfaces.md`, "Control plane").

use alloc::string::String;

use serde::Serialize;

/// Everything a request can be refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The HTTP request cannot be understood.
    BadRequest,
    /// The body is not the archive that was asked for.
    BadArchive,
    /// The manifest cannot be read.
    BadManifest,
    /// The signature file is not minisign's format.
    BadSignatureFormat,
    /// The program breaks a rule of the boot ABI or one of ours.
    BadElf,
    /// The order cannot be read, or asks for something unknown.
    BadOrder,
    /// The body ended early.
    Truncated,
    /// Signed with another key than the one this machine trusts.
    WrongKey,
    /// The signature does not fit the text.
    WrongSignature,
    /// The program is not the one whose digest the manifest names.
    DigestMismatch,
    /// The order is for another host.
    WrongHost,
    /// The order is for another generation.
    WrongGeneration,
    /// The order's nonce is not the present one.
    WrongNonce,
    /// The image's security version is below the machine's floor.
    BelowFloor,
    /// No such path.
    NotFound,
    /// The path does not know this method.
    MethodNotAllowed,
    /// The request was too slow.
    TimedOut,
    /// A push or a replacement is under way.
    Busy,
    /// The order needs a staged image.
    NothingStaged,
    /// The staged image is not the one the order names.
    WrongImage,
    /// The order ends a trial, and there is none.
    NotOnTrial,
    /// `Content-Length` is missing.
    LengthRequired,
    /// Larger than the limit.
    TooLarge,
    /// A core did not stop.
    StopFailed,
    /// Private pages were not reset.
    PrivatePages,
    /// The application did not save its state.
    StateNotSaved,
    /// Not enough free memory.
    NoMemory,
    /// The machine is going down.
    ShuttingDown,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 28] = [
        Self::BadRequest,
        Self::BadArchive,
        Self::BadManifest,
        Self::BadSignatureFormat,
        Self::BadElf,
        Self::BadOrder,
        Self::Truncated,
        Self::WrongKey,
        Self::WrongSignature,
        Self::DigestMismatch,
        Self::WrongHost,
        Self::WrongGeneration,
        Self::WrongNonce,
        Self::BelowFloor,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TimedOut,
        Self::Busy,
        Self::NothingStaged,
        Self::WrongImage,
        Self::NotOnTrial,
        Self::LengthRequired,
        Self::TooLarge,
        Self::StopFailed,
        Self::PrivatePages,
        Self::StateNotSaved,
        Self::NoMemory,
        Self::ShuttingDown,
    ];

    /// HTTP status, name in the answer, and what to do about it.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request", "send a plain HTTP/1.1 request"),
            Self::BadArchive => (
                400,
                "bad-archive",
                "build the archive with xtask: ustar, the documented members in their order",
            ),
            Self::BadManifest => (
                400,
                "bad-manifest",
                "build the image with xtask: it writes the manifest",
            ),
            Self::BadSignatureFormat => (
                400,
                "bad-signature-format",
                "sign with minisign -S (prehashed, which is its default)",
            ),
            Self::BadElf => (
                400,
                "bad-elf",
                "build the image with xtask: its linker options keep the rules",
            ),
            Self::BadOrder => (
                400,
                "bad-order",
                "write the order with this machine's version of xtask",
            ),
            Self::Truncated => (400, "truncated", "send all of it again"),
            Self::WrongKey => (
                403,
                "wrong-key",
                "sign with the key that this machine was started with",
            ),
            Self::WrongSignature => (
                403,
                "wrong-signature",
                "sign again: the text changed after it was signed",
            ),
            Self::DigestMismatch => (
                403,
                "digest-mismatch",
                "build the image again: manifest and program do not belong together",
            ),
            Self::WrongHost => (
                403,
                "wrong-host",
                "write an order with the host_id of this machine's /v1/status",
            ),
            Self::WrongGeneration => (
                403,
                "wrong-generation",
                "the machine has moved on: read /v1/status and write a new order",
            ),
            Self::WrongNonce => (
                403,
                "wrong-nonce",
                "a nonce is valid once: read /v1/status and write a new order",
            ),
            Self::BelowFloor => (
                403,
                "below-floor",
                "push an image whose security_version is at least the floor",
            ),
            Self::NotFound => (
                404,
                "not-found",
                "ask for /v1/status, /v1/measurements, /v1/image or /v1/orders",
            ),
            Self::MethodNotAllowed => (
                405,
                "method-not-allowed",
                "GET /v1/status, GET /v1/measurements, PUT /v1/image, POST /v1/orders",
            ),
            Self::TimedOut => (408, "timed-out", "send again, without pauses"),
            Self::Busy => (409, "busy", "wait until the other push or replacement has ended"),
            Self::NothingStaged => (409, "nothing-staged", "push an image first: PUT /v1/image"),
            Self::WrongImage => (
                409,
                "wrong-image",
                "write an order for the staged image, or push the other one",
            ),
            Self::NotOnTrial => (
                409,
                "not-on-trial",
                "read /v1/status: only an image that is on trial can be committed or sent back",
            ),
            Self::LengthRequired => (411, "length-required", "send Content-Length, not a chunked body"),
            Self::TooLarge => (
                413,
                "too-large",
                "make it smaller, or raise instar.max-image at the next boot",
            ),
            Self::StopFailed => (
                500,
                "stop-failed",
                "the machine still serves; look at its log before another try",
            ),
            Self::PrivatePages => (
                500,
                "private-pages",
                "the machine still serves; hand the private pages over, or move its guests away and restart it",
            ),
            Self::StateNotSaved => (
                500,
                "state-not-saved",
                "the machine still serves; look at the application's words in its log before another try",
            ),
            Self::NoMemory => (
                503,
                "no-memory",
                "push a smaller image, or give the machine more memory",
            ),
            Self::ShuttingDown => (503, "shutting-down", "ask again when the machine is back"),
        }
    }

    /// The name in the answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }
}

/// A refused request, as it is told to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// HTTP status, 400 to 503.
    #[serde(skip)]
    pub status: u16,
    /// The documented name of the reason.
    pub code: &'static str,
    /// What happened and what it means.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a Refusal,
}

impl Refusal {
    /// A refusal for `code`; `message` says what happened and what it means, with the numbers a person needs.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (status, code, hint) = code.row();
        Self {
            status,
            code,
            message: message.into(),
            hint,
        }
    }

    /// A refusal that another part of the project has put into words; `code` is one of the documented ones.
    #[must_use]
    pub fn with_hint(code: &'static str, message: String, hint: &'static str) -> Self {
        let status = Code::ALL
            .iter()
            .find(|known| known.name() == code)
            .map_or(400, |known| known.row().0);
        Self {
            status,
            code,
            message,
            hint,
        }
    }

    /// The answer's body: `{"error":{"code","message","hint"}}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings alone cannot fail to serialise.
        serde_json::to_string(&Envelope { error: self }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn codes_are_exactly_the_documented_ones() {
        let page = include_str!("../../../docs/interfaces.md");
        let table = page.split_once("| status | codes |").expect("the table").1;
        let table = table.split_once("\n\n").expect("its end").0;
        let mut documented = Vec::new();
        for row in table.lines().skip(2) {
            let mut cells = row.split('|').skip(1);
            let statuses = cells.next().expect("a status");
            // Names stand between backquotes: every second piece.
            for name in cells.next().expect("codes").split('`').skip(1).step_by(2) {
                documented.push((name, statuses));
            }
        }
        let names: Vec<_> = documented.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, Code::ALL.map(Code::name));
        for (code, (_, statuses)) in Code::ALL.iter().zip(documented) {
            let (status, name, hint) = code.row();
            assert!(statuses.contains(&alloc::format!("{status}")), "{name}: {status}");
            assert!(!hint.is_empty());
        }
    }

    #[test]
    fn the_body_is_the_documented_one() {
        let refusal = Refusal::new(Code::WrongHost, "the order is for \"b\"");
        assert_eq!(refusal.status, 403);
        assert_eq!(
            refusal.to_json(),
            "{\"error\":{\"code\":\"wrong-host\",\"message\":\"the order is for \\\"b\\\"\",\
             \"hint\":\"write an order with the host_id of this machine's /v1/status\"}}"
        );
    }
}
