//! The verbs of `cargo xtask`, as a library: what the verbs do, the machine tests do too.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line, and what each verb prints |
//! | [`collect`] | the collector: what machines report |
//! | [`exit`] | exit codes and errors that say what to do |
//! | [`workspace`], [`build`], [`elf_check`] | from the source to a checked ELF |
//! | [`keys`], [`image`] | key pairs; the signed archive |
pub mod build;
pub mod cli;
pub mod collect;
pub mod client;
pub mod control;
pub mod elf_check;
pub mod exit;
pub mod http;
pub mod image;
pub mod install;
pub mod keys;
pub mod machine;
pub mod order;
pub mod stats;
pub mod timeline;
pub mod upgrade;
pub mod workspace;
