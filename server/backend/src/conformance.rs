//! The suite that every backend passes.
//!
//! A backend's tests call [`run`] with the engine and with what it is known not to do. The suite runs
//! small models and looks at answers, at the memory around outputs, at keys that come again with other
//! memory, and at all that may go wrong: none of it may crash or spoil the next batch.
//!
//! Inputs and outputs lie in [`AlignedBuffer`](adjoin_shm::AlignedBuffer)s, at multiples of 64 as in a
//! session's regions.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the suite is a failed test"
)]

mod answers;
mod digits;
mod faults;
mod hostile;
mod keys;
pub mod memory;
pub mod onnx;
mod outputs;
mod suite;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::{Backend, Placement};
use suite::Suite;

/// Where the models are, and what the engine is known not to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory with `add.onnx` and its like.
    pub models: PathBuf,
    /// The directory with `model.onnx`, `test_images.npy` and `test_labels.npy` of the digits.
    pub digits: PathBuf,
    /// Test models that the engine does not run, without `.onnx`. The suite checks that it says so while
    /// loading.
    pub refused: &'static [&'static str],
    /// INT64 inputs are held in 32 bits; larger values must fail, not be cut.
    pub has_narrow_int64: bool,
    /// The engine copies payload in and out by itself. If not, the suite checks that it copies nothing.
    pub copies_payload: bool,
    /// Values that no answer can be given for, such as an index out of range, are errors. If not, the suite checks that
    /// they spoil nothing else.
    pub checks_values: bool,
    /// Where models run.
    pub placement: Placement,
}

type Case = fn(&Suite<'_>);

const CASES: &[(&str, Case)] = &[
    ("metadata_is_that_of_the_file", answers::metadata),
    ("sums_are_right_for_any_batch_size", answers::add),
    ("types_may_differ_between_input_and_output", answers::scale),
    ("models_without_a_batch_dimension_run", answers::fixed),
    ("indices_read_what_they_name", answers::gather),
    ("integers_are_exact", answers::ints),
    ("half_precision_is_exact", answers::half),
    ("loops_run", answers::slow),
    ("size_may_be_known_after_the_run", answers::nonzero),
    ("digits_are_recognised", digits::accuracy),
    ("bound_output_touches_its_own_bytes_only", outputs::guards),
    ("unbound_output_is_as_the_bound_one", outputs::unbound),
    ("skipped_output_is_left_alone", outputs::skipped),
    ("empty_batch_runs", outputs::empty_batch),
    ("output_may_be_an_input", outputs::handed_out),
    ("full_sink_is_an_error_and_no_more", outputs::full_sink),
    ("wrong_room_is_an_error", outputs::wrong_room),
    ("copies_are_counted", outputs::copies),
    ("key_sees_new_bytes", keys::new_bytes),
    ("key_with_other_memory_uses_that", keys::other_memory),
    ("key_with_another_shape_uses_that", keys::other_shape),
    (
        "key_with_other_kinds_of_output_uses_those",
        keys::other_outputs,
    ),
    ("any_number_of_keys_runs", keys::many),
    ("file_that_is_none_is_an_error", faults::no_file),
    ("damaged_file_is_an_error", faults::damaged_file),
    ("models_it_cannot_run_are_refused", faults::refused),
    ("other_files_are_not_accepted", faults::accepts),
    ("wrong_inputs_are_errors", faults::wrong_inputs),
    ("failed_batch_spoils_nothing", faults::bad_index),
    ("integer_division_ends_no_process", faults::division),
    (
        "client_that_writes_meanwhile_harms_nobody",
        hostile::scribbler,
    ),
    ("instances_run_side_by_side", faults::instances),
];

/// Runs the suite.
///
/// # Panics
/// With the names of all cases that failed; each has said why on standard error.
pub fn run(backend: &dyn Backend, options: &Options) {
    let suite = Suite { backend, options };
    let failed: Vec<&str> = CASES
        .iter()
        .filter(|(_, case)| catch_unwind(AssertUnwindSafe(|| case(&suite))).is_err())
        .map(|(name, _)| *name)
        .collect();
    assert!(
        failed.is_empty(),
        "{} {} failed: {}",
        backend.name(),
        backend.version(),
        failed.join(", ")
    );
}
