//! A key-value server that speaks RESP, and keeps its data in memory that outlives the image.
//!
//! | module | what |
//! |---|---|
//! | [`resp`] | requests and replies, as redis clients write and read them |
//! | [`arena`] | the memory: segments, addressed by offsets, read and written by words |
//! | [`log`] | changes of several words, all or none of them |
//! | [`blocks`] | which part of the memory is in use |
//! | [`record`] | a key and its value in memory, in every format there is |
//! | [`store`] | the map: a trie over hashes |
//! | [`commands`] | what clients can ask for |
//! | [`session`] | one client: its transaction, and the commands one after the other |
//!
//! Nothing in here touches hardware or waits: the program in `main.rs` brings memory, time and network.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arena;
pub mod blocks;
pub mod commands;
pub mod glob;
pub mod log;
pub mod record;
pub mod resp;
pub mod session;
pub mod store;
