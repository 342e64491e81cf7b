//! The verbs of `cargo xtask`, as a library: what the verbs do, the machine tests do too.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the command line, and what each verb prints |
//! | [`exit`] | exit codes and errors that say what to do |
//! | [`install`], [`unpack`] | programs that must be there |
//! | [`workspace`], [`build`], [`elf_check`] | from the source to a checked ELF |
//! | [`keys`], [`image`], [`order`] | key pairs, and what is signed with them |
//! | [`machine`] | a virtual machine: started, watched, ended whatever happens |
//! | [`http`], [`control`], [`upgrade`] | asking a machine, and replacing its image |
//! | [`client`], [`stats`] | asking it all the time, and what that showed |
//! | [`scene`] | an upgrade under the eyes of such clients |
//! | [`collect`] | the collector: what machines report |
//! | [`measure`] | what a machine has run, recomputed from files |
//! | [`timeline`] | a replacement, drawn for people |
//! | [`trace_context`] | the span in which a pipeline runs a verb |

pub mod build;
pub mod cli;
pub mod client;
pub mod collect;
pub mod control;
pub mod elf_check;
pub mod exit;
pub mod failing;
pub mod http;
pub mod image;
pub mod install;
pub mod keys;
pub mod machine;
pub mod measure;
pub mod order;
pub mod scene;
pub mod soak;
pub mod stats;
pub mod timeline;
pub mod trace_context;
pub mod unpack;
pub mod upgrade;
pub mod workspace;
