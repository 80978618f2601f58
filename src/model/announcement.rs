//! The NOTIFY payload sent when a job changes: the job's id and its state. Nothing else, since anyone may listen.

use serde::Serialize;

use crate::model::state::State;

/// Channel of the notifications.
pub const CHANNEL: &std::ffi::CStr = c"backfill";

#[derive(Serialize)]
struct Announcement {
    job_id: i64,
    state: &'static str,
}

/// Returns the payload of a notification: one line of JSON.
pub fn payload(job_id: i64, state: State) -> String {
    let state = state.name();
    // A number and a word can always be written as JSON.
    serde_json::to_string(&Announcement { job_id, state }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_id_and_the_state() {
        assert_eq!(
            payload(7, State::Running),
            r#"{"job_id":7,"state":"running"}"#
        );
    }
}
