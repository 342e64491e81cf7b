//! virtio-net over PCI: virtio-drivers' queues, with our buffers and MSI-X around them.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, DeviceFunctionInfo};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::msix::Message;
use super::network::{BUFFER, Buffer, NetworkError};
use super::pci::{self, Ports};
use crate::cpu::{CoreId, current, vector};

const QUEUE: usize = 64;
const NO_VECTOR: u16 = 0xffff;

/// Memory is mapped at its physical address and devices see all of it.
struct Identity;

// SAFETY: `dma_alloc` returns zeroed pages of the heap that nobody else has, at the address that the device sees.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = layout(pages);
        // SAFETY: not of size zero: virtio-drivers asks for at least one page.
        let Some(memory) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: from `dma_alloc` with the same number of pages.
        unsafe { dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, bytes: usize) -> NonNull<u8> {
        crate::memory::map_device(address..address + bytes as u64);
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap_or(Layout::new::<[u8; PAGE_SIZE]>())
}

/// A PCI transport that also gives each queue its interrupt vector while it is set up (virtio 1.2, section 4.1.5.1.2).
struct Messages {
    inner: PciTransport,
    /// `queue_select` and `queue_msix_vector` of the common configuration (section 4.1.4.3), if there is MSI-X.
    vector_registers: Option<(*mut u16, *mut u16)>,
}

// SAFETY: the registers are device memory, reached by whoever holds the card's lock.
unsafe impl Send for Messages {}

impl Messages {
    const RECEIVE_QUEUE: u16 = 0;

    /// The transport, and the message that it interrupts with if the device has such.
    fn new(function: DeviceFunction, inner: PciTransport) -> (Self, Option<Message>) {
        let message =
            current::get(CoreId::BOOT).and_then(|core| Message::new(function, core.apic(), vector::NETWORK));
        let vector_registers = message
            .is_some()
            .then(|| common_configuration(function))
            .flatten();
        (
            Self {
                inner,
                vector_registers,
            },
            message,
        )
    }
}

/// Finds the registers through the vendor capability of type 1 (virtio 1.2, section 4.1.4).
fn common_configuration(function: DeviceFunction) -> Option<(*mut u16, *mut u16)> {
    const VENDOR: u8 = 0x09;
    const COMMON: u8 = 1;
    let mut root = pci::steady_root();
    let capability = root.capabilities(function).find(|capability| {
        capability.id == VENDOR && pci::read_byte(function, capability.offset + 3) == COMMON
    })?;
    let bar = root
        .bar_info(function, pci::read_byte(function, capability.offset + 4))
        .ok()??;
    let base = bar.memory_address_size()?.0 + u64::from(Ports.read_word(function, capability.offset + 8));
    // Mapped by the transport.
    Some(((base + 22) as *mut u16, (base + 26) as *mut u16))
}

impl Transport for Messages {
    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        if let Some((select, queue_vector)) = self.vector_registers {
            // Sent frames are collected when the next one is sent: no interrupt for them.
            let entry = if queue == Self::RECEIVE_QUEUE {
                0
            } else {
                NO_VECTOR
            };
            // SAFETY: registers of this device, mapped uncached, 16-bit aligned by the specification.
            unsafe {
                select.write_volatile(queue);
                queue_vector.write_volatile(entry);
            }
        }
        self.inner.queue_set(queue, size, descriptors, driver, device);
    }
    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }
    fn read_device_features(&mut self) -> u64 {
        self.inner.read_device_features()
    }
    fn write_driver_features(&mut self, features: u64) {
        self.inner.write_driver_features(features);
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.inner.max_queue_size(queue)
    }
    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }
    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.inner.set_status(status);
    }
    fn set_guest_page_size(&mut self, size: u32) {
        self.inner.set_guest_page_size(size);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }
    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }
    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> virtio_drivers::Result<T> {
        self.inner.read_config_space(offset)
    }
    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> virtio_drivers::Result<()> {
        self.inner.write_config_space(offset, value)
    }
}

/// A virtio network card. Dropping it resets the device.
pub struct VirtioNet {
    // Declared before the buffers: the device is reset before they are freed.
    raw: VirtIONetRaw<Identity, Messages, QUEUE>,
    receive: [Option<Buffer>; QUEUE],
    transmit: [Option<Buffer>; QUEUE],
    free: Vec<Buffer>,
    has_interrupts: bool,
    /// Masked until somebody waits for it.
    message: Option<Message>,
    function: DeviceFunction,
}

impl VirtioNet {
    /// Is that function one?
    pub fn matches(info: &DeviceFunctionInfo) -> bool {
        virtio_device_type(info) == Some(DeviceType::Network)
    }

    /// Resets the device and makes it ready.
    pub fn new(function: DeviceFunction) -> Result<Self, NetworkError> {
        pci::enable(function, false);
        let mut transport = PciTransport::new::<Identity, _>(&mut pci::steady_root(), function)
            .map_err(|_| NetworkError::Transport)?;
        // What the firmware left running must not reach memory when bus mastering is switched on.
        transport.set_status(DeviceStatus::empty());
        pci::enable(function, true);
        let (transport, message) = Messages::new(function, transport);
        let has_interrupts = transport.vector_registers.is_some();
        let mut card = Self {
            raw: VirtIONetRaw::new(transport).map_err(|_| NetworkError::Setup)?,
            receive: [const { None }; QUEUE],
            transmit: [const { None }; QUEUE],
            free: (0..QUEUE).map(|_| Box::new([0; BUFFER])).collect(),
            has_interrupts,
            message,
            function,
        };
        for _ in 0..QUEUE {
            card.recycle(Box::new([0; BUFFER]));
        }
        Ok(card)
    }

    /// Where on the PCI buses the card is.
    pub fn function(&self) -> DeviceFunction {
        self.function
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.raw.mac_address()
    }

    /// Does the card interrupt, or must it be asked?
    pub fn has_interrupts(&self) -> bool {
        self.has_interrupts
    }

    /// Somebody waits for an interrupt. The first time this unmasks it: until then frames come without one, since whoever
    /// sets the card up looks at it anyway when everything is ready.
    pub fn listen(&mut self) {
        if let Some(message) = self.message.take() {
            message.unmask();
        }
    }

    /// A frame that has arrived: the buffer, and where in it the frame lies.
    pub fn receive(&mut self) -> Option<(Buffer, core::ops::Range<usize>)> {
        let token = self.raw.poll_receive()?;
        let mut buffer = self.receive.get_mut(usize::from(token))?.take()?;
        // SAFETY: the buffer that `recycle` gave with this token.
        let Ok((header, length)) = (unsafe { self.raw.receive_complete(token, &mut buffer[..]) }) else {
            // A device that contradicts itself: the buffer goes back, the frame is lost.
            super::network::ERRORS.count_received();
            self.recycle(buffer);
            return None;
        };
        let frame = header..header.saturating_add(length).min(BUFFER);
        Some((buffer, frame))
    }

    /// Gives a buffer to the device for the next frame.
    pub fn recycle(&mut self, mut buffer: Buffer) {
        // SAFETY: the buffer is kept in `receive`, untouched, until the device has given it back or has been reset.
        if let Ok(token) = unsafe { self.raw.receive_begin(&mut buffer[..]) }
            && let Some(slot) = self.receive.get_mut(usize::from(token))
        {
            *slot = Some(buffer);
        }
    }

    /// Can a frame be sent now?
    pub fn can_transmit(&mut self) -> bool {
        self.collect_sent();
        !self.free.is_empty()
    }

    /// Sends a frame of `length` bytes that `fill` writes. Without a free buffer the frame is lost, as on a wire.
    pub fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut spare = [0; BUFFER];
        let Some(mut buffer) = self.free.pop() else {
            super::network::ERRORS.count_transmitted();
            return fill(&mut spare[..length.min(BUFFER)]);
        };
        let header = self.raw.fill_buffer_header(&mut buffer[..]).unwrap_or(0);
        let end = (header + length).min(BUFFER);
        let result = fill(&mut buffer[header..end]);
        // SAFETY: the buffer is kept in `transmit`, untouched, until the device has given it back or has been reset.
        match unsafe { self.raw.transmit_begin(&buffer[..end]) } {
            Ok(token) if usize::from(token) < QUEUE => self.transmit[usize::from(token)] = Some(buffer),
            _ => {
                super::network::ERRORS.count_transmitted();
                self.free.push(buffer);
            }
        }
        result
    }

    fn collect_sent(&mut self) {
        while let Some(token) = self.raw.poll_transmit() {
            let Some(buffer) = self.transmit.get_mut(usize::from(token)).and_then(Option::take) else {
                return;
            };
            // SAFETY: the buffer that `transmit` gave with this token. Its length is not looked at for a readable buffer.
            if unsafe { self.raw.transmit_complete(token, &buffer[..]) }.is_err() {
                return;
            }
            self.free.push(buffer);
        }
    }
}
