//! Names in messages: lists of names, and the distance that finds the name a user meant.

/// Number of names that are listed at most.
const SHOWN: usize = 3;

/// Lists the names; of more than `SHOWN`, their number and the first few.
pub fn listed<S: AsRef<str>>(tables: &[S]) -> String {
    let names: Vec<&str> = tables.iter().map(AsRef::as_ref).take(SHOWN).collect();
    let names = names.join(", ");
    if are_many(tables) {
        format!("{} tables ({names}, ...)", tables.len())
    } else {
        names
    }
}

/// True if [`listed`] does not name all of them.
pub fn are_many<S>(tables: &[S]) -> bool {
    tables.len() > SHOWN
}

/// Levenshtein's edit distance (usual two-row dynamic programming); only the first 64 characters of `b` count.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut previous = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitution = previous + usize::from(ca != *cb);
            previous = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(previous + 1);
        }
    }
    row[b.len()]
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
