//! A replacement that may fail, on both sides: time that does not pass, and connections that are another's.

use alloc::vec::Vec;

use smoltcp::phy::{Device, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::super::across::{ACKNOWLEDGED, Kept, Predecessors, QUESTION, question};
use super::super::port::{Port, Wire};
use super::Stack;

impl Stack {
    /// From `now` on nobody polls, and no time passes for connections: their peers cannot be heard, so that their silence
    /// means nothing.
    pub fn stand_still(&mut self, now: Instant) {
        self.standing.get_or_insert(now);
    }

    /// The end of [`Stack::stand_still`]: all timers have as long to go as they had then.
    pub fn go_on(&mut self, now: Instant) {
        if let Some(since) = self.standing.take() {
            self.stood += now - since;
        }
    }

    /// The time that has passed for the interface, its sockets and the backlog.
    pub(super) fn own_time(&self, now: Instant) -> Instant {
        self.standing.unwrap_or(now) - self.stood
    }

    /// Before the first poll: these connections are a predecessor's, who may come back to them.
    pub fn leave_alone(&mut self, kept: Vec<Kept>) {
        self.predecessors = Predecessors::new(kept);
    }

    /// The predecessor does not come back: its connections are over, and their peers are told.
    pub fn forget_kept(&mut self) {
        let over = self.predecessors.forget().into_iter();
        self.over = over
            .flat_map(|kept| ACKNOWLEDGED.map(|number| (kept, number)))
            .collect();
    }

    /// Asks the peers of connections that are over, so that they find out. One whose hardware address is not known finds out
    /// when it next says something.
    pub(super) fn tell_peers(&mut self, now: Instant, wire: &mut dyn Wire) {
        let Some(own) = self.current.as_ref().map(|current| current.address) else {
            self.over.clear();
            return;
        };
        while let Some((kept, acknowledged)) = self.over.last().copied() {
            let number = (self.random() >> 32) as u32;
            let mut port = Port {
                capabilities: &self.capabilities,
                frame: None,
                wire,
                watch: &mut self.watch,
            };
            if let Some(mac) = port.watch.hardware_address(*kept.peer.ip()) {
                let hardware = (EthernetAddress(self.mac), EthernetAddress(mac));
                let Some(room) = port.transmit(now) else { return };
                let frame = question(&kept, own, hardware, number, acknowledged);
                room.consume(QUESTION, |buffer| buffer.copy_from_slice(&frame));
            }
            self.over.pop();
        }
    }
}
