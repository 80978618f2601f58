//! Something that is to be found out about text of some role's.

use std::time::Duration;

use pgrx::pg_sys::Oid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::ask;
use crate::error::{Error, Result};
use crate::pg::{confine, server, txn};

/// Something to be found out about text of `owner`'s, in a session that is the owner's.
pub trait Errand: Serialize + DeserializeOwned {
    /// What the checker knows it by.
    const NAME: &'static str;
    /// How long it may take: what is looked up in catalogs is bounded, what reads rows is not.
    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));
    /// Whether the caller's own text goes to a checker as well: where it is run with all that comes with it,
    /// the session that did so is to end.
    const ALWAYS_SENT: bool = false;
    /// Whether what it does in a checker is committed, and not undone.
    const KEPT: bool = false;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned;

    /// The role that the text belongs to.
    fn owner(&self) -> Oid;

    /// Finds it out. Within a session of the owner's, connected to SPI; whatever it does is undone, unless
    /// it is [`KEPT`](Errand::KEPT).
    fn run(self) -> Result<Self::Answer>;
}

/// Carries an errand out: in the caller's session if the text is the caller's own, and the session is, else in a checker. Within
/// a SECURITY DEFINER function the session is that of whoever calls it, with that role's temporary tables and settings.
pub fn carry_out<E: Errand>(errand: E) -> Result<E::Answer> {
    let own = errand.owner() == server::current_user() && !txn::in_security_definer();
    if own && !E::ALWAYS_SENT {
        return confine::own_text(errand.owner(), || errand.run());
    }
    let answer = ask(E::NAME, errand.owner(), &errand, E::LIMIT)?;
    serde_json::from_value(answer).map_err(unreadable)
}

/// The error for what the other side cannot have sent.
pub(super) fn unreadable(error: serde_json::Error) -> Error {
    Error::internal(format!("what a checker says cannot be read: {error}"))
}
