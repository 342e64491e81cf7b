//! One connection: where a request ends and the next begins.

use alloc::vec::Vec;

use smoltcp::time::{Duration, Instant};

use super::head::{Head, HeadError, MAX_HEAD};
use super::{Response, Stream};
use crate::net::{Timer, within};

const HEAD: Duration = Duration::from_secs(10);
const PROGRESS: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);
/// An unread body up to this is read to keep the connection.
const DRAIN: u64 = 16 * 1024;
/// Written at a time: each piece must be taken within `PROGRESS`.
const PIECE: usize = 4096;

/// Why a body ended early. The answer can still be sent; the connection is closed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The peer sent nothing for 10 seconds.
    #[error("the body stopped coming for 10 s, {missing} bytes are missing")]
    TimedOut {
        /// Bytes of the body that have not come.
        missing: u64,
    },
    /// The peer closed or reset the connection.
    #[error("the connection ended, {missing} bytes of the body are missing")]
    Truncated {
        /// Bytes of the body that have not come.
        missing: u64,
    },
}

pub(super) struct Connection<S, T> {
    stream: S,
    timer: T,
    /// Read and not yet used: a part of a head, or what came behind one.
    buffer: Vec<u8>,
    /// Bytes of the body under way that the handler has not read.
    missing: u64,
    /// The peer waits to be asked for the body.
    expects: bool,
    /// The connection can be used for another request.
    keep: bool,
    /// The request was `HEAD`: the answer has no body.
    bodiless: bool,
    /// No request has come yet.
    fresh: bool,
}

impl<S: Stream, T: Timer> Connection<S, T> {
    pub fn new(stream: S, timer: T) -> Self {
        Connection {
            stream,
            timer,
            buffer: Vec::new(),
            missing: 0,
            expects: false,
            keep: true,
            bodiless: false,
            fresh: true,
        }
    }

    /// The next request's head; `None` when there will be none: a bad one has been refused here.
    pub async fn next(&mut self) -> Option<Head> {
        match self.head().await {
            Ok(head) => {
                let head = head?;
                self.fresh = false;
                self.missing = head.length.unwrap_or(0);
                self.expects = head.expects && self.missing > 0;
                self.keep = head.keep;
                self.bodiless = head.method() == "HEAD";
                Some(head)
            }
            Err(error) => {
                self.keep = false;
                self.answer(error.response()).await;
                None
            }
        }
    }

    async fn head(&mut self) -> Result<Option<Head>, HeadError> {
        let start = self.timer.now();
        let mut until = start + if self.fresh { HEAD } else { IDLE };
        if !self.buffer.is_empty() {
            until = start + HEAD;
        }
        // A head ends with a line break: without one there is nothing new to parse, however small the pieces.
        let mut parse = self.buffer.contains(&b'\n');
        loop {
            let due = parse || self.buffer.len() >= MAX_HEAD;
            if due && let Some((head, length)) = Head::parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some(head));
            }
            let old = self.buffer.len();
            let idle = old == 0 && !self.fresh;
            match self.more(until, idle).await {
                None if old == 0 => return Ok(None),
                None => return Err(HeadError::Late),
                Some(0) if old == 0 => return Ok(None),
                Some(0) => return Err(HeadError::Syntax),
                Some(_) => {}
            }
            if old == 0 && !self.fresh {
                until = self.timer.now() + HEAD;
            }
            parse = self.buffer.get(old..).is_some_and(|new| new.contains(&b'\n'));
        }
    }

    /// Reads into the buffer up to its limit; 0 at the end or after a reset, `None` if the time has passed. An `idle`
    /// connection ends too when it should.
    async fn more(&mut self, until: Instant, idle: bool) -> Option<usize> {
        let old = self.buffer.len();
        self.buffer.resize((old + 1024).clamp(old, MAX_HEAD.max(old)), 0);
        let (stream, room) = (&mut self.stream, self.buffer.get_mut(old..).unwrap_or_default());
        let read = async {
            match idle {
                true => stream.read_next(room).await,
                false => stream.read(room).await,
            }
        };
        let read = within(&self.timer, until, read)
            .await
            .map(|read| read.unwrap_or(0));
        self.buffer.truncate(old + read.unwrap_or(0));
        read
    }

    pub async fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, BodyError> {
        let limit = usize::try_from(self.missing)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let room = buffer.get_mut(..limit).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let buffered = self.buffer.len().min(room.len());
        let read = if buffered > 0 {
            self.expects = false;
            room.iter_mut()
                .zip(self.buffer.drain(..buffered))
                .for_each(|(to, from)| *to = from);
            buffered
        } else {
            if core::mem::take(&mut self.expects) && !self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await {
                return Err(self.truncated());
            }
            let until = self.timer.now() + PROGRESS;
            match within(&self.timer, until, self.stream.read(room)).await {
                None => {
                    self.keep = false;
                    return Err(BodyError::TimedOut {
                        missing: self.missing,
                    });
                }
                Some(Ok(read @ 1..)) => read,
                Some(_) => return Err(self.truncated()),
            }
        };
        self.missing -= read as u64;
        Ok(read)
    }

    fn truncated(&mut self) -> BodyError {
        self.keep = false;
        BodyError::Truncated {
            missing: self.missing,
        }
    }

    /// Sends an answer; whether the connection can be used for another request.
    pub async fn answer(&mut self, response: Response) -> bool {
        // A peer that still waits to be asked may send the body or not: nobody can tell it from the next request.
        let keep = self.keep && !self.expects && self.missing <= DRAIN && !self.stream.ending();
        let mut head = response.head(!keep);
        let mut body = if self.bodiless || response.is_bare() {
            &[][..]
        } else {
            response.body()
        };
        if body.len() <= PIECE {
            // One write, and as a rule one segment.
            head.extend_from_slice(core::mem::take(&mut body));
        }
        self.write(&head).await && self.write(body).await && keep && self.drain().await
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(PIECE) {
            let until = self.timer.now() + PROGRESS;
            if !matches!(
                within(&self.timer, until, self.stream.write_all(piece)).await,
                Some(Ok(()))
            ) {
                return false;
            }
        }
        true
    }

    /// Reads what the handler left of the body, all of it in the time for one piece.
    async fn drain(&mut self) -> bool {
        let timer = self.timer.clone();
        let until = timer.now() + PROGRESS;
        let work = async {
            let mut piece = [0; 256];
            while self.missing > 0 {
                if self.read_body(&mut piece).await.is_err() {
                    return false;
                }
            }
            true
        };
        within(&timer, until, work).await.unwrap_or(false)
    }
}
