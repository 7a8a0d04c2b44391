//! The batcher of one model version. [`scheduler`] brings requests and instances together by the rules of
//! [`policy`] (when, and how much), [`queue`] (who goes first), [`queue_policy`] (who waits for how long), [`arrivals`]
//! (whether waiting can pay) and [`admission`] (who would come too late). [`execute`] runs a batch: in place where that is possible, else
//! gathered and scattered.

pub mod admission;
pub mod arrivals;
pub mod execute;
mod gather;
pub mod policy;
pub mod queue;
pub mod queue_policy;
pub mod scheduler;
