//! What the user is told of faults of the application's own code and state.

use crate::store::{Failure, Fault};

/// A fault as an error with a code and a sentence.
pub(super) fn describe(fault: Fault) -> Failure {
    match fault {
        Fault::Diverged { index, failure, .. } => Failure::new(
            "DIVERGED",
            format!(
                "the state here may differ from the other nodes', since entry {index}: {failure}"
            ),
        ),
        Fault::Outdated { release } => Failure::new(
            "OUTDATED",
            format!("the cluster runs version {release} of the application"),
        ),
        Fault::Stopped(failure) => failure,
        Fault::CannotSave(failure) => Failure::new(
            "CANNOT_SAVE",
            format!("the state cannot be saved, so the log keeps growing: {}", failure.message),
        ),
    }
}
