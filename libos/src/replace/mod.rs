//! Receive → stage → quiesce → stop → jump, and what one instar leaves for the next.
