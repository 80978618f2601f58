//! The states of a job, the one table of transitions between them, and the derivation of a state.
//!
//! No state is stored. A user's call writes a *wish* into the job; the worker writes an *outcome* into a table of its
//! own (so that neither ever waits for the other); and a session lock tells whether a worker is alive. [`derive()`]
//! computes the state from these three, in the same way for the view, the control functions and the worker.

use std::fmt;

/// A job's state as `backfill.progress` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Defined, not started.
    Pending,
    /// Started; a worker runs it, or one will.
    Running,
    /// A pause is wanted; the worker is still in a batch.
    Pausing,
    /// Held; nothing runs.
    Paused,
    /// A cancel is wanted; the worker is still in a batch.
    Cancelling,
    /// Ended early at someone's request.
    Cancelled,
    /// Every row of the walk has been passed.
    Completed,
    /// A batch raised an error; the job can be resumed.
    Failed,
}

/// The wish of the users for a job, set by the last of their calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The job is only defined.
    Define,
    /// The job should run.
    Run,
    /// The job should pause.
    Pause,
    /// The job should end.
    Cancel,
}

/// The way in which the last worker ended the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The walk reached its end.
    Completed,
    /// A batch failed in the attempt with this number.
    Failed {
        /// Number of the attempt that failed; `start` and `resume` count attempts.
        attempt: i32,
    },
    /// The worker saw the wish to cancel.
    Cancelled,
}

/// An event that makes a job leave a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `backfill.start`
    Start,
    /// `backfill.pause`
    Pause,
    /// `backfill.resume`
    Resume,
    /// `backfill.cancel`
    Cancel,
    /// `backfill.retry_failed`
    Retry,
    /// The worker is gone (its session lock is free).
    WorkerGone,
    /// The worker reached the end of the walk.
    Done,
    /// The worker met an error.
    Error,
}

/// An edge of the state machine, and why it is there.
#[derive(Debug)]
pub struct Transition {
    /// The state that the edge leaves.
    pub from: State,
    /// The event that takes the edge.
    pub on: Event,
    /// The state that the edge leads to while a worker is alive (and where that makes no difference).
    pub to: State,
    /// Why the edge exists.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "written for the reader of the table")
    )]
    pub reason: &'static str,
}

const fn edge(from: State, on: Event, to: State, reason: &'static str) -> Transition {
    Transition {
        from,
        on,
        to,
        reason,
    }
}

/// Every edge there is. A transition that is not listed is refused.
pub const TRANSITIONS: &[Transition] = &[
    edge(
        State::Pending,
        Event::Start,
        State::Running,
        "a definition is released",
    ),
    edge(
        State::Pending,
        Event::Cancel,
        State::Cancelled,
        "a definition is withdrawn; nothing ran",
    ),
    edge(
        State::Running,
        Event::Pause,
        State::Pausing,
        "the batch in progress is finished first",
    ),
    edge(
        State::Running,
        Event::Cancel,
        State::Cancelling,
        "the batch in progress is finished first",
    ),
    edge(
        State::Running,
        Event::Done,
        State::Completed,
        "the walk passed its last key",
    ),
    edge(
        State::Running,
        Event::Error,
        State::Failed,
        "a batch was rolled back; its rows are not done",
    ),
    edge(
        State::Pausing,
        Event::WorkerGone,
        State::Paused,
        "the batch has ended, or its worker crashed",
    ),
    edge(
        State::Pausing,
        Event::Resume,
        State::Running,
        "the pause is taken back",
    ),
    edge(
        State::Pausing,
        Event::Cancel,
        State::Cancelling,
        "a cancel outranks a pause",
    ),
    edge(
        State::Pausing,
        Event::Done,
        State::Completed,
        "the last batch was in progress",
    ),
    edge(
        State::Pausing,
        Event::Error,
        State::Failed,
        "the batch in progress failed",
    ),
    edge(
        State::Paused,
        Event::Resume,
        State::Running,
        "the pause is over",
    ),
    edge(
        State::Paused,
        Event::Cancel,
        State::Cancelled,
        "nothing is in progress",
    ),
    edge(
        State::Cancelling,
        Event::WorkerGone,
        State::Cancelled,
        "the batch has ended, or its worker crashed",
    ),
    edge(
        State::Cancelling,
        Event::Done,
        State::Completed,
        "the last batch was in progress",
    ),
    edge(
        State::Failed,
        Event::Resume,
        State::Running,
        "the cause is mended; goes on from the checkpoint",
    ),
    edge(
        State::Failed,
        Event::Retry,
        State::Running,
        "the rest is done, then the rows that failed are tried again",
    ),
    edge(
        State::Running,
        Event::Retry,
        State::Running,
        "the rows that have failed so far are tried again when all others are done",
    ),
    edge(
        State::Completed,
        Event::Retry,
        State::Running,
        "the rows that failed are tried again",
    ),
    edge(
        State::Failed,
        Event::Cancel,
        State::Cancelled,
        "the cause will not be mended",
    ),
];

/// The state that `on` leads to, or `None` where the edge does not exist.
pub fn next(from: State, on: Event) -> Option<State> {
    TRANSITIONS
        .iter()
        .find(|t| t.from == from && t.on == on)
        .map(|t| t.to)
}

/// The facts that a state is derived from.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The wish of the last call.
    pub wish: Wish,
    /// Number of times the job was started or resumed.
    pub attempt: i32,
    /// The outcome that a worker wrote last, if it ended the job.
    pub outcome: Option<Outcome>,
    /// Whether a worker holds the job's session lock.
    pub live: bool,
    /// Whether this is the database that the job was started in, not a copy.
    pub here: bool,
}

/// Derives the state of a job.
///
/// `completed` outranks any wish, since a walk cannot become unfinished (once failed rows are tried again, the outcome
/// of the attempt before no longer counts); a wish to cancel outranks a failure; a failure counts only for the attempt
/// in which it happened.
pub fn derive(facts: Facts) -> State {
    match (facts.outcome, facts.wish) {
        (Some(Outcome::Completed), _) => State::Completed,
        (Some(Outcome::Cancelled), Wish::Cancel) => State::Cancelled,
        (_, Wish::Cancel) if facts.live => State::Cancelling,
        (_, Wish::Cancel) => State::Cancelled,
        (_, Wish::Define) => State::Pending,
        (Some(Outcome::Failed { attempt }), _) if attempt == facts.attempt => State::Failed,
        (_, Wish::Pause) if facts.live => State::Pausing,
        (_, Wish::Pause) => State::Paused,
        (_, Wish::Run) if !facts.here => State::Paused,
        (_, Wish::Run) => State::Running,
    }
}

impl State {
    /// True if the job has come to an end (a failed one can still be resumed).
    pub fn ended(self) -> bool {
        matches!(self, State::Completed | State::Cancelled | State::Failed)
    }

    /// True if the job may still write to its table, so that it keeps other jobs off its columns.
    pub fn active(self) -> bool {
        !matches!(self, State::Pending | State::Completed | State::Cancelled)
    }

    /// Returns the state as the predicate of a sentence, with "already" if `already` is set.
    pub fn phrase(self, already: bool) -> String {
        let already = if already { "already " } else { "" };
        match self {
            State::Completed | State::Failed => format!("has {already}{self}"),
            State::Cancelled => format!("has {already}been cancelled"),
            State::Cancelling => format!("is {already}being cancelled"),
            _ => format!("is {already}{self}"),
        }
    }

    /// The name in the view.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Running => "running",
            State::Pausing => "pausing",
            State::Paused => "paused",
            State::Cancelling => "cancelling",
            State::Cancelled => "cancelled",
            State::Completed => "completed",
            State::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Wish {
    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Wish::Define => "define",
            Wish::Run => "run",
            Wish::Pause => "pause",
            Wish::Cancel => "cancel",
        }
    }

    /// Returns the wish with this name.
    pub fn parse(name: &str) -> Option<Wish> {
        [Wish::Define, Wish::Run, Wish::Pause, Wish::Cancel]
            .into_iter()
            .find(|w| w.name() == name)
    }
}

impl Outcome {
    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Failed { .. } => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// Returns the outcome with this name, of this attempt.
    pub fn parse(name: &str, attempt: i32) -> Option<Outcome> {
        match name {
            "completed" => Some(Outcome::Completed),
            "failed" => Some(Outcome::Failed { attempt }),
            "cancelled" => Some(Outcome::Cancelled),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
