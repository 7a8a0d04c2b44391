//! What the programs of adjoin share: the `adjoin` command and the load generator.
//!
//! * Programs: [`process`] (workers that are told what to do by lines), [`parent`], [`interrupt`],
//!   [`output`], [`table`], [`control`] (the server's control plane).
//! * Measuring: [`latencies`], [`spread`] (a median and how sure it is), [`tensor`], [`contents`] and
//!   [`session_size`] (what requests hold and need), [`in_process`] (the same call without a server), [`bystanders`] (what others used
//!   meanwhile), [`machine`].

pub mod bystanders;
pub mod contents;
pub mod control;
pub mod in_process;
pub mod interrupt;
pub mod latencies;
pub mod machine;
pub mod output;
pub mod parent;
pub mod process;
pub mod session_size;
pub mod spread;
pub mod table;
pub mod tensor;

/// What a command ends with when it does not do what it was asked to.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
