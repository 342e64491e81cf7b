//! The network card, whichever it is, for the network stack.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use spin::Mutex;

use super::pci;
use super::virtio::{Buffer, VirtioNet};

/// Why there is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No function on any PCI bus is a card that we drive.
    #[error("no network card was found: add a virtio-net-pci device")]
    NotFound,
    /// The card's registers were not where the specification puts them.
    #[error("the network card has no modern virtio interface: disable-legacy=on gives it one")]
    Transport,
    /// The card refused its queues.
    #[error("the network card refused to be set up")]
    Setup,
}

/// The longest frame, without its checksum: 1500 bytes behind the Ethernet header.
const FRAME: usize = 1514;

// Boxed, so that the image does not hold its 5 KiB.
static CARD: Mutex<Option<Box<VirtioNet>>> = Mutex::new(None);

// An interrupt handler may take no lock: it leaves a flag for the executor that it wakes, which wakes the task.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WORK: AtomicBool = AtomicBool::new(false);
static WAITING: Mutex<Option<Waker>> = Mutex::new(None);

/// Finds the card and makes it ready.
pub fn init() -> Result<Nic, NetworkError> {
    let functions = pci::functions();
    let (function, _) = functions
        .iter()
        .find(|(_, info)| VirtioNet::matches(info))
        .ok_or(NetworkError::NotFound)?;
    let card = VirtioNet::new(*function)?;
    let nic = Nic {
        mac: card.mac(),
        has_interrupts: card.has_interrupts(),
    };
    *CARD.lock() = Some(Box::new(card));
    WORK.store(true, Ordering::SeqCst);
    Ok(nic)
}

/// Cuts all other devices off from memory, while the network is still served.
pub fn cut_off_others() {
    let card = CARD.lock().as_ref().map(|card| card.function());
    pci::cut_off_from_memory(card);
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
    frame: core::ops::Range<usize>,
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
