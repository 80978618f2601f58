//! The hours of the day that a job may run in: `22:00-06:00 Europe/Berlin`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// From a time of the day, up to another, which is on the next day if it is not later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// Minutes after midnight at which it opens.
    from: u16,
    /// Minutes after midnight at which it closes.
    until: u16,
    /// The time zone whose clock is meant, by its name in PostgreSQL; `None`: the job's TimeZone.
    zone: Option<String>,
}

/// A bound on when a job may run; `None`: at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWindow(pub Option<Hours>);

impl RunWindow {
    /// Reads it; an empty text sets no bound.
    pub fn parse(text: &str) -> Option<RunWindow> {
        match text.trim() {
            "" => Some(RunWindow(None)),
            text => Hours::parse(text).map(|hours| RunWindow(Some(hours))),
        }
    }
}

impl Hours {
    fn parse(text: &str) -> Option<Hours> {
        let (from, rest) = text.split_once('-')?;
        let (until, zone) = match rest.trim_start().split_once(char::is_whitespace) {
            Some((until, zone)) => (until, Some(zone.trim().to_owned())),
            None => (rest, None),
        };
        let (from, until) = (minutes(from)?, minutes(until)?);
        // 00:00-24:00 is no bound, and from a time to itself could mean all or nothing.
        let some = from != until && from < DAY && (from, until) != (0, DAY);
        some.then_some(Hours { from, until, zone })
    }

    /// The time zone, if it is not the job's.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Minutes until it opens, at this minute of the day; `None`: it is open.
    pub fn closed_for(&self, now: u16) -> Option<u16> {
        let open = if self.from < self.until {
            (self.from..self.until).contains(&now)
        } else {
            now >= self.from || now < self.until
        };
        (!open).then(|| (self.from + DAY - now) % DAY)
    }

    /// When it opens, for people: `22:00 Europe/Berlin`.
    pub fn opening(&self) -> String {
        let at = clock(self.from);
        match &self.zone {
            Some(zone) => format!("{at} {zone}"),
            None => at,
        }
    }
}

/// `06:30`; `24:00` is the end of a day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let sound = (1..=2).contains(&hour.len()) && minute.len() == 2;
    if !sound || !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let sum = hour * 60 + minute;
    (minute < 60 && sum <= DAY).then_some(sum)
}

fn clock(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl fmt::Display for RunWindow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Some(hours) = &self.0 else { return Ok(()) };
        write!(f, "{}-{}", clock(hours.from), clock(hours.until))?;
        hours.zone.iter().try_for_each(|zone| write!(f, " {zone}"))
    }
}

impl<'de> Deserialize<'de> for RunWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunWindow, D::Error> {
        RunWindow::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not hours of a day"))
    }
}

impl Serialize for RunWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        RunWindow::parse(text).unwrap().0.unwrap()
    }

    #[test]
    fn over_midnight() {
        let night = hours("22:00-06:00 Europe/Berlin");
        assert_eq!(night.zone(), Some("Europe/Berlin"));
        assert_eq!(night.closed_for(22 * 60), None);
        assert_eq!(night.closed_for(0), None);
        assert_eq!(night.closed_for(5 * 60 + 59), None);
        assert_eq!(night.closed_for(6 * 60), Some(16 * 60));
        assert_eq!(night.closed_for(21 * 60 + 59), Some(1));
        assert_eq!(night.opening(), "22:00 Europe/Berlin");
    }

    #[test]
    fn within_a_day() {
        let day = hours("09:30-17:00");
        assert_eq!(day.zone(), None);
        assert_eq!(day.closed_for(9 * 60 + 29), Some(1));
        assert_eq!(day.closed_for(9 * 60 + 30), None);
        assert_eq!(day.closed_for(16 * 60 + 59), None);
        assert_eq!(day.closed_for(17 * 60), Some(16 * 60 + 30));
        assert_eq!(hours("20:00-24:00").closed_for(23 * 60 + 59), None);
        assert_eq!(hours("20:00-24:00").closed_for(0), Some(20 * 60));
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "22:00-06:00 Europe/Berlin",
            "09:30-17:00",
            "20:00-24:00 UTC",
            "",
        ] {
            assert_eq!(RunWindow::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_people_write_is_understood() {
        for (text, read) in [
            ("9:00-17:00", "09:00-17:00"),
            ("22:00 - 6:00", "22:00-06:00"),
            (" 22:00 -06:00  Europe/Berlin ", "22:00-06:00 Europe/Berlin"),
        ] {
            assert_eq!(RunWindow::parse(text).unwrap().to_string(), read);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "22-06",
            "22:00",
            "22:00-22:00",
            "25:00-06:00",
            "00:00-24:00",
            "24:00-06:00",
            "22:60-06:00",
            "009:00-17:00",
            "09:0-17:00",
            "+1:00-02:00",
            "a:b-c:d",
        ] {
            assert_eq!(RunWindow::parse(text), None, "{text}");
        }
    }
}
