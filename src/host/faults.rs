//! What the user is told of faults of the application's own code and state.

use crate::store::{Failure, Fault};

/// A fault as an error with a code and a sentence.
pub(super) fn describe(fault: Fault) -> Failure {
    match fault {
        Fault::ReducerFailed(failure) => Failure::new(
            "REDUCER_FAILED",
            format!(
                "the reducer failed on a committed action, and this node's state is as if the \
                 action had not been: {}",
                failure.message
            ),
        ),
        Fault::CannotSave(failure) => Failure::new(
            "CANNOT_SAVE",
            format!("the state cannot be saved, so the log keeps growing: {}", failure.message),
        ),
        Fault::CannotLoad(failure) => Failure::new(
            "CANNOT_LOAD",
            format!("a snapshot of the state cannot be loaded: {}", failure.message),
        ),
        Fault::BadEntry(index) => Failure::new(
            "BAD_ENTRY",
            format!("the log entry at {index} cannot be read, and is skipped"),
        ),
    }
}
