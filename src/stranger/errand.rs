//! Errands: questions about text that may belong to another role.

use std::time::Duration;

use pgrx::pg_sys::Oid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::ask;
use super::unreadable;
use crate::error::Result;
use crate::pg::{confine, server};

/// A question about text of `owner`'s, to be answered in a session of the owner's.
pub trait Errand: Serialize + DeserializeOwned {
    /// Name by which the checker finds the errand.
    const NAME: &'static str;
    /// Longest time it may take. What is looked up in catalogs is bounded; what reads rows is not (`None`).
    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));
    /// Whether the caller's own text goes to a checker, too: where text is run with all its effects, the session that
    /// ran it must end afterwards.
    const ALWAYS_SENT: bool = false;
    /// Whether the effects of the errand in a checker are committed instead of undone.
    const KEPT: bool = false;
    /// The type of the answer.
    type Answer: Serialize + DeserializeOwned;

    /// Returns the role that the text belongs to.
    fn owner(&self) -> Oid;

    /// Finds the answer. Within a session of the owner's, connected to SPI; everything it does is undone, unless it is
    /// [`KEPT`](Errand::KEPT).
    fn run(self) -> Result<Self::Answer>;
}

/// Carries an errand out: in the caller's session if both the text and the session are the caller's own, else in a
/// checker. Within a SECURITY DEFINER function the session belongs to the function's caller, with that role's temporary
/// tables and settings.
pub fn carry_out<E: Errand>(errand: E) -> Result<E::Answer> {
    let own = errand.owner() == server::current_user() && !server::in_security_definer();
    if own && !E::ALWAYS_SENT {
        return confine::own_text(errand.owner(), || errand.run());
    }
    let answer = ask(E::NAME, errand.owner(), &errand, E::LIMIT)?;
    serde_json::from_value(answer).map_err(unreadable)
}
