//! What a test says to a machine: pushes, orders, and the questions after them.

use super::{DEADLINE, Machine};
use crate::{
    broken::orders::Facts,
    clients::{self, Answer},
};
use serde_json::Value;
use std::{
    io,
    time::{Duration, Instant},
};

/// A replacement, seen from outside.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The successor's.
    pub status: Value,
    /// What was posted.
    pub order: Vec<u8>,
    /// When the order was sent.
    pub ordered: Instant,
    /// When the successor had said that it serves.
    pub serving: Instant,
}

impl Machine {
    /// `/v1/status`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_status(&self, patience: Duration) -> io::Result<Value> {
        let answer = clients::request_within(self.control, "GET", "/v1/status", b"", patience)?;
        match answer.status {
            200 => Ok(answer.json()),
            other => Err(io::Error::other(format!("status {other}: {}", answer.body))),
        }
    }

    /// `/v1/status` of a machine that serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn status(&self) -> Value {
        self.try_status(clients::PATIENCE)
            .expect("the machine tells its status")
    }

    /// Asks until the status is as it should be.
    ///
    /// # Panics
    /// If it is not in time: with the last one.
    pub fn wait_until(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while Instant::now() < deadline && !self.serial.ended() {
            // A connection that is opened between two instars is answered late, if at all: ask anew before that.
            let status = self.try_status(Duration::from_secs(2));
            match status {
                Ok(status) if right(&status) => return status,
                other => last = Some(other),
            }
        }
        panic!("{what} did not come; last: {last:?}");
    }

    /// Sends an image.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn push(&self, image: &[u8]) -> Answer {
        clients::request(self.control, "PUT", "/v1/image", image).expect("an answer to a push")
    }

    /// Sends an order.
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn order(&self, order: &[u8]) -> Answer {
        clients::request(self.control, "POST", "/v1/orders", order).expect("an answer to an order")
    }

    /// What an order must say now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let status = self.status();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Facts {
            host: text(&status["host_id"]),
            generation: status["generation"].as_u64().unwrap_or_default(),
            nonce: text(&status["nonce"]),
            image: text(&status["staged"]["sha256"]),
        }
    }

    /// Stages an image that is right.
    ///
    /// # Panics
    /// If it is refused.
    pub fn stage(&self, image: &[u8]) -> Value {
        let answer = self.push(image);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["staged"].clone()
    }

    /// Orders what is staged, and waits until the successor is committed.
    ///
    /// # Panics
    /// If the order is refused, or no successor comes.
    pub fn replace(&self) -> Replaced {
        let facts = self.facts();
        let order = facts.replace(&self.prepared.operator);
        let ordered = Instant::now();
        let answer = self.order(&order);
        assert_eq!(answer.status, 202, "{}", answer.body);
        let next = facts.generation + 1;
        // Asking while nobody is there costs seconds of retransmission: the serial line tells sooner.
        self.wait_line(&format!("instar: serving generation={next} "));
        let serving = Instant::now();
        // Until it is committed it takes no other image.
        let committed = |status: &Value| status["generation"] == next && status["state"] == "serving";
        let status = self.wait_until("the successor, committed", committed);
        Replaced {
            status,
            order,
            ordered,
            serving,
        }
    }

    /// Orders what is staged, on trial until an order; returns when it is on trial.
    ///
    /// # Panics
    /// If the order is refused, or no successor comes.
    pub fn try_out(&self) {
        let facts = self.facts();
        let words = "probation_ms = 600000\ncommit = \"order\"\n";
        let answer = self.order(&facts.order("replace", words, &self.prepared.operator));
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.wait_until("the successor, on trial", |status| {
            status["generation"] == facts.generation + 1 && status["state"] == "replacing"
        });
    }

    /// Ends a trial by this order.
    ///
    /// # Panics
    /// If it is refused.
    pub fn end_trial(&self, action: &str) {
        let answer = self.order(&self.facts().order(action, "", &self.prepared.operator));
        assert_eq!(answer.status, 202, "{}", answer.body);
    }

    /// Waits until a predecessor is back, with all its cores. Returns its status.
    ///
    /// # Panics
    /// If it is not.
    pub fn wait_for_predecessor(&self) -> Value {
        let status = self.wait_until("the predecessor is back", |status| {
            status["last_replacement"]["outcome"] == "rolled-back" && status["state"] == "serving"
        });
        assert_eq!(status["cores"]["online"], status["cores"]["present"]);
        status
    }

    /// Shows that the application serves: over TCP, UDP and the control plane.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_serves(&self) {
        self.assert_answers();
        let status = self.status();
        assert!(
            ["serving", "staged"].contains(&status["state"].as_str().unwrap_or_default()),
            "{status}"
        );
    }

    /// Shows that the application answers, over TCP and UDP.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_answers(&self) {
        clients::echo(self.echo, b"are you there?").expect("an echo");
        let answer = clients::request(self.http, "GET", "/", b"").expect("an answer from the application");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// What must be the same after a refusal as before it.
    #[must_use]
    pub fn traces(&self) -> Value {
        traces(&self.status())
    }

    /// The instar's own chunks: image, stacks, heap.
    #[must_use]
    pub fn own_chunks(&self) -> u64 {
        self.status()["memory"]["chunks"]["own"]
            .as_u64()
            .unwrap_or_default()
    }

    /// Shows that all that came since there were `before` own chunks has cost no more than what the heap keeps for
    /// connections that have ended, but not long ago.
    ///
    /// # Panics
    /// If it has.
    pub fn assert_bounded(&self, before: u64) {
        let now = self.own_chunks();
        assert!(
            now <= before + 8,
            "the instar has grown from {before} chunks to {now}"
        );
    }

    /// Waits until nothing is left of a client that did not end its request.
    pub fn wait_for_traces(&self, before: &Value) {
        self.wait_until("the state before", |status| traces(status) == *before);
    }

    /// The beginnings of a push after which a client may give up.
    #[must_use]
    pub fn beginnings(&self) -> Vec<Vec<u8>> {
        let image = &self.prepared.new;
        let head = clients::head("PUT", "/v1/image", image.len() as u64).into_bytes();
        let with = |bytes: usize| [&head[..], &image[..bytes]].concat();
        vec![
            head[..10].to_vec(),
            head.clone(),
            with(700),
            with(5000),
            with(image.len() / 2),
            with(image.len() - 1),
        ]
    }
}

fn traces(status: &Value) -> Value {
    let chunks = &status["memory"]["chunks"];
    let count = |owner: &str| chunks[owner].as_u64().unwrap_or_default();
    // The heap may grow by a chunk now and then, and keeps it: what is free or the instar's own is one number here, and
    // [`Machine::assert_bounded`] looks at the other.
    serde_json::json!({
        "generation": status["generation"],
        "state": status["state"],
        "staged": status["staged"],
        "chunks": {
            "total": count("total"),
            "staged": count("staged"),
            "predecessor": count("predecessor"),
            "free or own": count("free") + count("own"),
        },
        "cores": status["cores"],
    })
}
