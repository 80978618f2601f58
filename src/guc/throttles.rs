//! Settings that are the defaults of the bounds of signals, for jobs that do not set them. They are declared from
//! [`SIGNALS`].
//!
//! All are reloadable (`SIGHUP`) and take effect with the next batch of running jobs. -1, off, or an empty text: no
//! bound.

use std::ffi::CString;
use std::sync::LazyLock;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::throttle::kind::{Kind, Value};
use crate::throttle::limits::Throttles;
use crate::throttle::signals::{Bound, SIGNALS, Signal};

/// Values of the settings, in this and the next two arrays. Each array is indexed by the signal's place in the table;
/// the kind of the bound says which array is used.
static NUMBERS: LazyLock<Vec<GucSetting<i32>>> = LazyLock::new(|| {
    let bounds = SIGNALS.iter().map(|entry| entry.bound.as_ref());
    let defaults = bounds.map(|bound| bound.map_or(-1, |bound| bound.kind.default()));
    defaults.map(GucSetting::<i32>::new).collect()
});
static FLAGS: [GucSetting<bool>; SIGNALS.len()] =
    [const { GucSetting::<bool>::new(false) }; SIGNALS.len()];
static TEXTS: [GucSetting<Option<CString>>; SIGNALS.len()] =
    [const { GucSetting::<Option<CString>>::new(Some(c"")) }; SIGNALS.len()];

/// Declares the settings; called once when the library is loaded.
pub fn register() {
    for (place, entry) in SIGNALS.iter().enumerate() {
        if let Some(bound) = &entry.bound {
            declare(place, bound);
        }
    }
}

fn declare(place: usize, bound: &'static Bound) {
    let (name, short, long) = (bound.setting, bound.about, bound.more);
    let context = GucContext::Sighup;
    let flags = match bound.kind {
        Kind::Bytes(_) => GucFlags::UNIT_KB,
        Kind::Span(_) => GucFlags::UNIT_MS,
        _ => GucFlags::default(),
    };
    match bound.kind {
        Kind::Bytes(_) | Kind::Span(_) | Kind::Number { .. } => {
            let value = &NUMBERS[place];
            GucRegistry::define_int_guc(name, short, long, value, -1, i32::MAX, context, flags);
        }
        Kind::Flag => {
            let value = &FLAGS[place];
            GucRegistry::define_bool_guc(name, short, long, value, context, flags);
        }
        Kind::Names | Kind::Text(_) | Kind::Window => {
            let value = &TEXTS[place];
            GucRegistry::define_string_guc(name, short, long, value, context, flags);
        }
    }
}

/// Returns the bounds that the server's settings set, and the texts of settings that make no sense, by signal.
pub fn in_force() -> (Throttles, Vec<(Signal, String)>) {
    let (mut read, mut wrong) = (Vec::new(), Vec::new());
    for (place, entry) in SIGNALS.iter().enumerate() {
        let Some(bound) = &entry.bound else { continue };
        match value(place, bound.kind) {
            Ok(value) => read.push((entry.signal, value)),
            Err(text) => wrong.push((entry.signal, text)),
        }
    }
    (read.into_iter().collect(), wrong)
}

/// Reads the value of a setting; the error is the setting's text, if that makes no sense.
fn value(place: usize, kind: Kind) -> Result<Value, String> {
    match kind {
        Kind::Bytes(_) | Kind::Span(_) | Kind::Number { .. } => {
            Ok(kind.of_number(NUMBERS[place].get()))
        }
        Kind::Flag => Ok(Value::Flag(FLAGS[place].get())),
        Kind::Names | Kind::Text(_) | Kind::Window => {
            let text = TEXTS[place].get().unwrap_or_default();
            let text = text.to_string_lossy().into_owned();
            kind.of_text(text.clone()).ok_or(text)
        }
    }
}
