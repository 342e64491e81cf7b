//! The network card, whichever it is, for the network stack.

use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use spin::Mutex;
use virtio_drivers::transport::pci::bus::{DeviceFunction, DeviceFunctionInfo};

use super::e1000::E1000;
use super::pci;
use super::virtio::VirtioNet;

/// Why there is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No function on any PCI bus is a card that we drive.
    #[error("no network card was found: add a virtio-net-pci or an e1000 (Intel 82540EM) device")]
    NotFound,
    /// A virtio card's registers were not where the specification puts them.
    #[error("the network card has no modern virtio interface: disable-legacy=on gives it one")]
    Transport,
    /// A virtio card refused its queues.
    #[error("the network card refused to be set up")]
    Setup,
    /// An e1000's registers are not in memory.
    #[error("the network card has no registers in memory: the firmware must give its BAR 0 an address")]
    Registers,
    /// An e1000 was asked to reset itself, and had not after 10 ms.
    #[error("the network card did not finish its reset within 10 ms: it is broken, or no 82540EM")]
    Reset,
    /// An e1000 has no address in its EEPROM, nor anywhere else.
    #[error("the network card has no MAC address: its EEPROM is empty or does not answer")]
    NoAddress,
}

/// The longest frame, without its checksum: 1500 bytes behind the Ethernet header.
const FRAME: usize = 1514;

/// Room for a frame, what a card may put in front of it (virtio: 12 bytes), and its checksum; one of the sizes that an e1000
/// takes.
pub(super) const BUFFER: usize = 2048;

/// A buffer that the card and the network stack pass to and fro.
pub(super) type Buffer = Box<[u8; BUFFER]>;

/// The cards that are driven. Boxed, so that the image does not hold their 5 KiB.
enum Card {
    Virtio(Box<VirtioNet>),
    E1000(Box<E1000>),
}

/// The same for each kind of card.
macro_rules! each {
    ($card:expr, $name:ident => $action:expr) => {
        match $card {
            Card::Virtio($name) => $action,
            Card::E1000($name) => $action,
        }
    };
}

impl Card {
    /// The first virtio card in the order of the PCI buses; without one, the first e1000. Every instar of a machine finds
    /// the same. virtio first, since it interrupts.
    fn find() -> Result<Self, NetworkError> {
        let functions = pci::functions();
        let first = |matches: fn(&DeviceFunctionInfo) -> bool| {
            let (function, _) = functions.iter().find(|(_, info)| matches(info))?;
            Some(*function)
        };
        if let Some(function) = first(VirtioNet::matches) {
            return Ok(Self::Virtio(Box::new(VirtioNet::new(function)?)));
        }
        let function = first(E1000::matches).ok_or(NetworkError::NotFound)?;
        Ok(Self::E1000(Box::new(E1000::new(function)?)))
    }

    fn function(&self) -> DeviceFunction {
        each!(self, card => card.function())
    }

    fn mac(&self) -> [u8; 6] {
        each!(self, card => card.mac())
    }

    fn has_interrupts(&self) -> bool {
        match self {
            Self::Virtio(card) => card.has_interrupts(),
            Self::E1000(_) => false,
        }
    }

    fn listen(&mut self) {
        if let Self::Virtio(card) = self {
            card.listen();
        }
    }

    fn receive(&mut self) -> Option<(Buffer, Range<usize>)> {
        each!(self, card => card.receive())
    }

    fn recycle(&mut self, buffer: Buffer) {
        each!(self, card => card.recycle(buffer));
    }

    fn can_transmit(&mut self) -> bool {
        each!(self, card => card.can_transmit())
    }

    fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        each!(self, card => card.transmit(length, fill))
    }
}

/// Frames that a card received damaged or too long, and that it did not take, since this instar was entered.
pub(crate) static ERRORS: Errors = Errors {
    received: AtomicU64::new(0),
    transmitted: AtomicU64::new(0),
};

/// See [`ERRORS`].
pub(crate) struct Errors {
    pub received: AtomicU64,
    pub transmitted: AtomicU64,
}

impl Errors {
    pub(super) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_transmitted(&self) {
        self.transmitted.fetch_add(1, Ordering::Relaxed);
    }
}

static CARD: Mutex<Option<Card>> = Mutex::new(None);

// An interrupt handler may take no lock: it leaves a flag for the executor that it wakes, which wakes the task.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WORK: AtomicBool = AtomicBool::new(false);
static WAITING: Mutex<Option<Waker>> = Mutex::new(None);

/// Finds the card and makes it ready.
pub fn init() -> Result<Nic, NetworkError> {
    let card = Card::find()?;
    let nic = Nic {
        mac: card.mac(),
        has_interrupts: card.has_interrupts(),
    };
    pci::remember(card.function());
    *CARD.lock() = Some(card);
    WORK.store(true, Ordering::SeqCst);
    Ok(nic)
}

/// Cuts all other devices off from memory, while the network is still served.
pub fn cut_off_others() {
    let card = CARD.lock().as_ref().map(|card| card.function());
    pci::cut_off_from_memory(card);
}

/// Cuts the card off from memory without a look at anything else: for a core that takes no lock any more. Whoever has the
/// machine next resets it.
pub(crate) fn cut_off_now() {
    pci::cut_off_remembered();
}

/// Resets the card and cuts it off from memory: from here on nothing arrives and nothing leaves.
pub fn shut_down() {
    if let Some(card) = CARD.lock().take() {
        let function = card.function();
        drop(card);
        pci::cut_off(function);
    }
}

/// The card's interrupt.
pub(crate) fn on_interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Is there an interrupt that no task has been told of?
pub(crate) fn interrupt_pending() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Tells the waiting task of an interrupt.
pub(crate) fn deliver_interrupt() {
    if INTERRUPTED.swap(false, Ordering::SeqCst) {
        WORK.store(true, Ordering::SeqCst);
        let waker = WAITING.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The network stack's hold on the card.
#[derive(Clone, Copy, Debug)]
pub struct Nic {
    mac: [u8; 6],
    has_interrupts: bool,
}

impl Nic {
    /// Its address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Does it interrupt? If not, it must be asked at intervals.
    pub fn has_interrupts(&self) -> bool {
        self.has_interrupts
    }
}

impl crate::net::Nic for Nic {
    fn poll_interrupt(&self, cx: &mut Context<'_>) -> Poll<()> {
        *WAITING.lock() = Some(cx.waker().clone());
        if WORK.swap(false, Ordering::SeqCst) {
            return Poll::Ready(());
        }
        if let Some(card) = CARD.lock().as_mut() {
            card.listen();
        }
        Poll::Pending
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending)> {
        let mut card = CARD.lock();
        let card = card.as_mut()?;
        // Not a frame that could not be answered.
        if !card.can_transmit() {
            // Frames that were sent come back without an interrupt: look again.
            WORK.store(true, Ordering::SeqCst);
            return None;
        }
        let (buffer, frame) = card.receive()?;
        Some((
            Received {
                buffer: Some(buffer),
                frame,
            },
            Sending,
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending> {
        CARD.lock().as_mut()?.can_transmit().then_some(Sending)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities.max_burst_size = Some(32);
        capabilities
    }
}

/// A frame that has arrived.
pub struct Received {
    buffer: Option<Buffer>,
    frame: Range<usize>,
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        // The card is not locked here: the stack may answer while it looks at the frame.
        f(self
            .buffer
            .as_ref()
            .and_then(|buffer| buffer.get(self.frame.clone()))
            .unwrap_or_default())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let (Some(card), Some(buffer)) = (CARD.lock().as_mut(), self.buffer.take()) {
            card.recycle(buffer);
        }
    }
}

/// The right to send one frame.
pub struct Sending;

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        match CARD.lock().as_mut() {
            Some(card) => card.transmit(length, f),
            None => f(&mut [0; FRAME][..length.min(FRAME)]),
        }
    }
}
