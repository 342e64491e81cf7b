//! One client: its transaction, and the commands one after the other.

use alloc::vec::Vec;

use crate::arena::Arena;
use crate::commands::{self, Refused, Surroundings, Then};
use crate::resp::Replies;
use crate::store::Store;

/// Most commands of a transaction.
pub const MAX_QUEUED: usize = 1024;
/// Most bytes of them.
pub const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Most bytes of replies to a transaction.
const MAX_REPLIES: usize = 8 << 20;

/// What is known of a client.
#[derive(Debug, Default)]
pub struct Session {
    /// Since MULTI.
    queue: Option<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Vec<Vec<u8>>>,
    bytes: usize,
    /// Something could not be queued: EXEC does nothing.
    spoilt: bool,
}

impl Session {
    /// Carries a request of at least one word out, or queues it.
    pub fn request<A: Arena>(
        &mut self,
        store: &mut Store<A>,
        around: &Surroundings,
        words: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Then {
        let name = commands::name(words);
        if let Err(Refused(problem)) = commands::check(&name, words) {
            if let Some(queue) = &mut self.queue {
                queue.spoilt = true;
            }
            Replies(out).error(&problem);
            return Then::Nothing;
        }
        match (&name[..], &mut self.queue) {
            (b"MULTI", None) => {
                self.queue = Some(Queue::default());
                Replies(out).simple("OK");
            }
            (b"MULTI", Some(_)) => Replies(out).error("ERR MULTI calls can not be nested"),
            (b"EXEC" | b"DISCARD", None) => {
                Replies(out).error(if name == b"EXEC" {
                    "ERR EXEC without MULTI"
                } else {
                    "ERR DISCARD without MULTI"
                });
            }
            (b"DISCARD", Some(_)) => {
                self.queue = None;
                Replies(out).simple("OK");
            }
            (b"EXEC", Some(_)) => return self.exec(store, around, out),
            (b"QUIT", _) | (_, None) => return commands::run(store, around, &name, words, out),
            (_, Some(queue)) => match queue.add(words) {
                Ok(()) => Replies(out).simple("QUEUED"),
                Err(problem) => Replies(out).error(problem),
            },
        }
        Then::Nothing
    }

    /// All of it at once: nobody else is served meanwhile.
    fn exec<A: Arena>(&mut self, store: &mut Store<A>, around: &Surroundings, out: &mut Vec<u8>) -> Then {
        let queue = self.queue.take().unwrap_or_default();
        if queue.spoilt {
            Replies(out).error("EXECABORT Transaction discarded because of previous errors.");
            return Then::Nothing;
        }
        let start = out.len();
        Replies(out).array(queue.commands.len());
        for words in &queue.commands {
            if out.len() - start > MAX_REPLIES {
                Replies(out)
                    .error("ERR the transaction's replies are too large: this command was not carried out");
                continue;
            }
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            if let Then::Work(_) = commands::run(store, around, &commands::name(&words), &words, out) {
                Replies(out).error("ERR this command takes too long for a transaction");
            }
        }
        Then::Nothing
    }
}

impl Queue {
    fn add(&mut self, words: &[&[u8]]) -> Result<(), &'static str> {
        self.bytes += words.iter().map(|word| word.len() + 24).sum::<usize>();
        if self.commands.len() == MAX_QUEUED || self.bytes > MAX_QUEUED_BYTES {
            self.spoilt = true;
            self.commands = Vec::new();
            return Err("ERR the transaction is too large: at most 1024 commands of 4 MiB");
        }
        self.commands
            .push(words.iter().map(|word| word.to_vec()).collect());
        Ok(())
    }
}
