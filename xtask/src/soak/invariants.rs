//! What holds after every step.

use crate::client;
use crate::http::{self, Limits};
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// How much an instar may grow, in chunks: heap that is kept for connections that have ended.
const GROWTH: u64 = 8;

/// What is known of the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) generation: u64,
    pub(super) version: String,
    pub(super) floor: u64,
    cores: u64,
    chunks: u64,
    own: u64,
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

impl Expected {
    /// Of a machine that has just booted.
    pub(super) fn of(status: &Value) -> Self {
        let chunks = &status["memory"]["chunks"];
        Self {
            generation: number(&status["generation"]),
            version: status["image"]["version"].as_str().unwrap_or_default().to_owned(),
            floor: number(&status["floor"]),
            cores: number(&status["cores"]["present"]),
            chunks: number(&chunks["total"]),
            own: number(&chunks["own"]),
        }
    }

    /// Checks all of it.
    pub(super) fn check(
        &self,
        machine: &Machine,
        wait: impl Fn(&str, &dyn Fn(&Value) -> bool) -> Result<Value>,
    ) -> Result<()> {
        // A predecessor's memory is wiped piece by piece.
        let status = wait("a machine at rest", &|status| {
            ["serving", "staged"].contains(&status["state"].as_str().unwrap_or_default())
                && status["memory"]["chunks"]["predecessor"] == 0
        })?;
        let chunks = &status["memory"]["chunks"];
        ensure!(
            number(&status["generation"]) == self.generation,
            "generation {}",
            status["generation"]
        );
        ensure!(
            status["image"]["version"] == self.version,
            "version {}",
            status["image"]["version"]
        );
        ensure!(
            number(&status["cores"]["online"]) == self.cores,
            "cores {}",
            status["cores"]
        );
        ensure!(
            number(&status["floor"]) == self.floor,
            "floor {}",
            status["floor"]
        );
        let sum: u64 = ["free", "own", "staged", "private"]
            .iter()
            .map(|owner| number(&chunks[owner]))
            .sum();
        ensure!(
            number(&chunks["total"]) == self.chunks && sum == self.chunks,
            "chunks {chunks}, and there were {}",
            self.chunks
        );
        ensure!(
            number(&chunks["own"]) <= self.own + GROWTH,
            "it has grown from {} chunks: {chunks}",
            self.own
        );
        let page = http::get(machine.addresses().http, "/", Limits::patient()).context("no HTTP")?;
        let says = format!("{}, generation {}", self.version, self.generation);
        ensure!(page.text().contains(&says), "it says {:?}", page.text());
        ensure!(
            client::echo_answers(machine.addresses().echo, Duration::from_secs(20)),
            "no echo"
        );
        Ok(())
    }
}
