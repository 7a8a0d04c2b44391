//! Ensembles: models that are made of other models, step by step.
//!
//! To clients an ensemble is a model like any other: it has a name, versions, inputs, outputs, a queue and statistics,
//! and takes requests of every kind. A request of it is a [`Run`]: whenever all inputs of a step are there, the step
//! becomes a job of its model, and waits and is joined with the requests of other clients as one of them. What a step
//! makes stays in private memory of the server, and later steps read it there; only the final outputs are copied, to
//! where the client reads them.
//!
//! Nothing here starts a thread or waits for one. [`Run`] says which jobs are next, the data plane
//! ([`engine`](crate::engine)) queues them, and whoever ran the last job of a step goes on with the run.
//!
//! The models of the steps are looked up for each request, so they can be loaded, replaced and unloaded like all
//! others.

mod outputs;
mod place;
mod plan;
mod ready;
mod run;
mod runs;
mod step;
mod tensor;

pub use place::ENGINE;
pub use plan::EnsemblePlan;
pub use ready::{is_ready, warn_of_misfits};
pub use run::{Advance, Finished, Run, StepSink};
pub(crate) use runs::Runs;
pub use tensor::{StepOutputs, StepTensor};

#[cfg(test)]
mod tests;
