//! The length limit of texts written to the extension's tables: an error message may be as long as its author likes,
//! and every query of `backfill.progress` sends what is stored.

use std::borrow::Cow;

/// Bytes of a text that are kept at most.
pub const MOST_BYTES: usize = 8192;

/// Returns the text as it is stored: whole, or its beginning, cut between two characters, with a mark that names the
/// length of the whole. The mark counts towards [`MOST_BYTES`] and is ASCII, so that any encoding has it.
pub fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST_BYTES {
        return Cow::Borrowed(text);
    }
    let mark = format!("... ({} bytes)", text.len());
    let mut end = MOST_BYTES - mark.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{mark}", &text[..end]))
}

/// Like [`cut`], for a text that may be missing.
pub fn cut_if_any(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_stay_as_they_are() {
        for text in ["", "a", &"x".repeat(MOST_BYTES)] {
            assert_eq!(cut(text), text);
        }
        assert_eq!(cut_if_any(None), None);
        assert_eq!(cut_if_any(Some("a")).as_deref(), Some("a"));
    }

    #[test]
    fn long_texts_are_cut_and_say_how_long_they_were() {
        let stored = cut(&"x".repeat(255_000_000)).into_owned();
        assert_eq!(stored.len(), MOST_BYTES);
        assert!(stored.ends_with("xx... (255000000 bytes)"));
        assert_eq!(cut(&"x".repeat(MOST_BYTES + 1)).len(), MOST_BYTES);
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        // Each prefix makes the cut fall on another byte of a character.
        for start in ["", "a", "ab", "abc"] {
            let text = format!("{start}{}", "\u{1F600}".repeat(3000));
            let stored = cut(&text);
            let mark = format!("... ({} bytes)", text.len());
            let kept = stored.strip_suffix(&mark).expect("the mark");
            assert!(text.starts_with(kept));
            assert!(stored.len() <= MOST_BYTES && stored.len() > MOST_BYTES - 4);
        }
    }

    #[test]
    fn what_was_cut_is_not_cut_again() {
        let once = cut(&"\u{e4}".repeat(9000)).into_owned();
        assert_eq!(cut(&once), once);
    }
}
