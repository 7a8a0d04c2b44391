//! The batcher of one model version: [`policy`] says when and how much, [`queue`] who goes first, and
//! [`execute`] runs a batch: in place where that is possible, else gathered and scattered.

pub mod execute;
mod gather;
pub mod policy;
pub mod queue;
