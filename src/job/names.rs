//! Names of tables in a sentence.

/// As many as are named, at most.
const SHOWN: usize = 3;

/// The names; of many, their number and the first.
pub fn listed<S: AsRef<str>>(tables: &[S]) -> String {
    let names: Vec<&str> = tables.iter().map(AsRef::as_ref).take(SHOWN).collect();
    let names = names.join(", ");
    if are_many(tables) {
        format!("{} tables ({names}, ...)", tables.len())
    } else {
        names
    }
}

/// Whether not all of them are named.
pub fn are_many<S>(tables: &[S]) -> bool {
    tables.len() > SHOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b, c");
        assert_eq!(listed(&["a", "b", "c", "d"]), "4 tables (a, b, c, ...)");
    }
}
