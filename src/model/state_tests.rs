//! Tests of the state machine.

use super::*;

const STATES: [State; 8] = [
    State::Pending,
    State::Running,
    State::Pausing,
    State::Paused,
    State::Cancelling,
    State::Cancelled,
    State::Completed,
    State::Failed,
];

fn facts(wish: Wish, outcome: Option<Outcome>, live: bool) -> Facts {
    Facts {
        wish,
        attempt: 2,
        outcome,
        live,
        here: true,
    }
}

#[test]
fn no_edge_is_listed_twice() {
    for (i, a) in TRANSITIONS.iter().enumerate() {
        assert!(!a.reason.is_empty());
        assert!(
            TRANSITIONS[i + 1..]
                .iter()
                .all(|b| (a.from, a.on) != (b.from, b.on)),
            "{a:?}"
        );
    }
}

#[test]
fn only_rows_that_failed_make_an_ended_job_go_on() {
    let leaving = |state| {
        let edges = TRANSITIONS.iter().filter(move |t| t.from == state);
        edges.map(|t| t.on).collect::<Vec<_>>()
    };
    assert_eq!(leaving(State::Completed), [Event::Retry]);
    assert_eq!(leaving(State::Cancelled), []);
}

#[test]
fn every_state_but_pending_can_be_reached() {
    for state in STATES {
        let reached = TRANSITIONS.iter().any(|t| t.to == state);
        assert_eq!(reached, state != State::Pending, "{state}");
    }
}

#[test]
fn wishes_lead_where_the_table_says() {
    let run = derive(facts(Wish::Run, None, true));
    assert_eq!(run, State::Running);
    for (wish, event) in [(Wish::Pause, Event::Pause), (Wish::Cancel, Event::Cancel)] {
        let alive = derive(facts(wish, None, true));
        assert_eq!(Some(alive), next(run, event));
        let gone = derive(facts(wish, None, false));
        assert_eq!(Some(gone), next(alive, Event::WorkerGone));
    }
}

#[test]
fn a_failure_counts_for_its_attempt_only() {
    let failed = |attempt| Some(Outcome::Failed { attempt });
    assert_eq!(derive(facts(Wish::Run, failed(2), false)), State::Failed);
    assert_eq!(derive(facts(Wish::Run, failed(1), false)), State::Running);
    assert_eq!(derive(facts(Wish::Pause, failed(2), false)), State::Failed);
    assert_eq!(
        derive(facts(Wish::Cancel, failed(2), false)),
        State::Cancelled
    );
}

#[test]
fn completed_outranks_every_wish() {
    for wish in [Wish::Run, Wish::Pause, Wish::Cancel] {
        assert_eq!(
            derive(facts(wish, Some(Outcome::Completed), false)),
            State::Completed
        );
    }
}

#[test]
fn a_copy_is_paused() {
    let copy = Facts {
        here: false,
        ..facts(Wish::Run, None, false)
    };
    assert_eq!(derive(copy), State::Paused);
    assert_eq!(next(State::Paused, Event::Resume), Some(State::Running));
}
