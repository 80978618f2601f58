//! The hours in which a job may run: `22:00-06:00 Europe/Berlin`, or `Mon-Fri 22:00-06:00, Sat-Sun Europe/Berlin`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
/// Minutes of a week.
const WEEK: u16 = 7 * DAY;
/// The days of the week, in the order of ISO 8601.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Spans that one window may have at most.
const MOST_SPANS: usize = 20;

/// A span from one time of day to another, on some days. If the second time is not later, it is on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// First and last day on which the span opens, 0 for Monday; `None`: every day. The last may come before the first:
    /// `Sat-Mon`.
    days: Option<(u16, u16)>,
    /// Minutes after midnight at which the span opens.
    from: u16,
    /// Minutes after midnight at which the span closes.
    until: u16,
}

/// The spans of a week, and the time zone they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// The spans; at least one.
    spans: Vec<Span>,
    /// The time zone, by its name in PostgreSQL; `None`: the job's TimeZone.
    zone: Option<String>,
}

/// A bound on when a job may run; `None`: at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWindow(pub Option<Hours>);

impl RunWindow {
    /// Parses the text; an empty one sets no bound.
    pub fn parse(text: &str) -> Option<RunWindow> {
        match text.trim() {
            "" => Some(RunWindow(None)),
            text => Hours::parse(text).map(|hours| RunWindow(Some(hours))),
        }
    }
}

impl Span {
    /// Parses a span, and returns it with the rest of the text.
    fn parse(text: &str) -> Option<(Span, &str)> {
        let (days, behind) = match days(text.trim_start()) {
            Some((days, rest)) => (Some(days), rest),
            None => (None, text),
        };
        let span = |from, until| Span { days, from, until };
        let Some((from, rest)) = minutes(behind.trim_start()) else {
            // Whole days.
            return days.map(|_| (span(0, DAY), behind));
        };
        let rest = rest.trim_start().strip_prefix('-')?.trim_start();
        let (until, rest) = minutes(rest)?;
        // From a time to the same time could mean all or nothing, and is refused.
        let some = from != until && from < DAY;
        some.then_some((span(from, until), rest))
    }

    fn opens_on(&self, day: u16) -> bool {
        match self.days {
            None => true,
            Some((first, last)) if first <= last => (first..=last).contains(&day),
            Some((first, last)) => day >= first || day <= last,
        }
    }

    /// Returns the openings in a week, each as its start in minutes after the beginning of the week, and its length in
    /// minutes.
    fn openings(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let lasts = match self.until > self.from {
            true => self.until - self.from,
            false => self.until + DAY - self.from,
        };
        let days = (0..7).filter(|day| self.opens_on(*day));
        days.map(move |day| (day * DAY + self.from, lasts))
    }
}

impl Hours {
    fn parse(text: &str) -> Option<Hours> {
        let (mut spans, mut rest) = (Vec::new(), text);
        loop {
            let (span, behind) = Span::parse(rest)?;
            spans.push(span);
            match behind.trim_start().strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = behind;
                    break;
                }
            }
        }
        let zone = match rest.trim() {
            "" => None,
            _ if !rest.starts_with(char::is_whitespace) => return None,
            zone => Some(zone.to_owned()),
        };
        let hours = Hours { spans, zone };
        // A window that is always open, such as 00:00-24:00, is no bound, and is refused.
        let bounds = (0..WEEK).any(|minute| hours.closed_for(minute).is_some());
        (bounds && hours.spans.len() <= MOST_SPANS).then_some(hours)
    }

    /// Returns the time zone, if it is not the job's.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns the minutes until the window opens, at minute `now` of the week (which begins on Monday); `None`: it is
    /// open.
    pub fn closed_for(&self, now: u16) -> Option<u16> {
        let openings = self.spans.iter().flat_map(Span::openings);
        let since = |from: u16| (now + WEEK - from) % WEEK;
        let mut wait = WEEK;
        for (from, lasts) in openings {
            if since(from) < lasts {
                return None;
            }
            wait = wait.min(WEEK - since(from));
        }
        Some(wait)
    }

    /// Returns when the window opens next, for people: `22:00 Europe/Berlin`, or `Mon 22:00` if the days differ.
    pub fn opening(&self, now: u16) -> String {
        let at = (now + self.closed_for(now).unwrap_or(0)) % WEEK;
        let day = match self.spans.iter().any(|span| span.days.is_some()) {
            true => format!("{} ", DAYS[usize::from(at / DAY)]),
            false => String::new(),
        };
        let zone = self
            .zone
            .as_ref()
            .map_or(String::new(), |zone| format!(" {zone}"));
        format!("{day}{}{zone}", clock(at % DAY))
    }
}

/// Parses `Mon` or `Mon-Fri` at the beginning of a text; returns it with the rest.
fn days(text: &str) -> Option<((u16, u16), &str)> {
    let (first, rest) = day(text)?;
    match rest
        .trim_start()
        .strip_prefix('-')
        .map(str::trim_start)
        .and_then(day)
    {
        Some((last, rest)) => Some(((first, last), rest)),
        None => Some(((first, first), rest)),
    }
}

fn day(text: &str) -> Option<(u16, &str)> {
    let (name, rest) = (text.get(..3)?, &text[3..]);
    let number = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name))?;
    // Refuses the beginning of a longer word.
    (!rest.starts_with(char::is_alphanumeric)).then_some((number as u16, rest))
}

/// Parses `06:30` at the beginning of a text; returns minutes and the rest. `24:00` is the end of a day.
fn minutes(text: &str) -> Option<(u16, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let hours = digits(text);
    let rest = text[hours..].strip_prefix(':')?;
    let sound = (1..=2).contains(&hours) && digits(rest) == 2;
    if !sound {
        return None;
    }
    let (hour, minute): (u16, u16) = (text[..hours].parse().ok()?, rest[..2].parse().ok()?);
    let sum = hour * 60 + minute;
    (minute < 60 && sum <= DAY).then_some((sum, &rest[2..]))
}

fn clock(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = |day: u16| DAYS[usize::from(day)];
        match self.days {
            None => {}
            Some((first, last)) if first == last => write!(f, "{}", name(first))?,
            Some((first, last)) => write!(f, "{}-{}", name(first), name(last))?,
        }
        match (self.days, self.from, self.until) {
            (Some(_), 0, DAY) => Ok(()),
            (Some(_), from, until) => write!(f, " {}-{}", clock(from), clock(until)),
            (None, from, until) => write!(f, "{}-{}", clock(from), clock(until)),
        }
    }
}

impl fmt::Display for RunWindow {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Some(hours) = &self.0 else { return Ok(()) };
        let spans: Vec<String> = hours.spans.iter().map(Span::to_string).collect();
        write!(f, "{}", spans.join(", "))?;
        hours.zone.iter().try_for_each(|zone| write!(f, " {zone}"))
    }
}

impl<'de> Deserialize<'de> for RunWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunWindow, D::Error> {
        RunWindow::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not hours of a day or a week"))
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
        assert_eq!(night.opening(6 * 60), "22:00 Europe/Berlin");
        assert_eq!(night.closed_for(6 * DAY + 23 * 60), None);
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
    fn days_of_the_week() {
        let hours = hours("Mon-Fri 22:00-06:00, Sat-Sun Europe/Berlin");
        let at = |day: u16, hour: u16| day * DAY + hour * 60;
        assert_eq!(hours.closed_for(at(0, 21)), Some(60));
        assert_eq!(hours.opening(at(0, 21)), "Mon 22:00 Europe/Berlin");
        for (day, hour) in [(0, 22), (1, 5), (4, 23), (5, 0), (5, 12), (6, 23)] {
            assert_eq!(hours.closed_for(at(day, hour)), None, "{day} {hour}");
        }
        // Monday begins when Sunday ends: the night from Sunday to Monday does not belong to Mon-Fri.
        assert_eq!(hours.closed_for(at(0, 0)), Some(22 * 60));
        let over = crate::throttle::window::Hours::parse("Sun-Mon 23:00-01:00").unwrap();
        assert_eq!(over.closed_for(at(0, 0)), None);
        assert_eq!(over.closed_for(at(1, 0)), None);
        assert_eq!(over.closed_for(at(2, 0)), Some(4 * DAY + 23 * 60));
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for text in [
            "22:00-06:00 Europe/Berlin",
            "09:30-17:00",
            "20:00-24:00 UTC",
            "Mon-Fri 22:00-06:00, Sat-Sun Europe/Berlin",
            "Sat",
            "Sun 00:00-06:00, Wed 01:00-02:00",
            "01:00-02:00, 12:00-13:00",
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
            (
                "mon - FRI 9:00-17:00,sat UTC",
                "Mon-Fri 09:00-17:00, Sat UTC",
            ),
            ("Sat 00:00-24:00", "Sat"),
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
            "Mon-Sun",
            "Mon-",
            "Monday",
            "Mon 22:00",
            "22:00-06:00,",
            "22:00-06:00UTC",
            "00:00-12:00, 12:00-24:00",
        ] {
            assert_eq!(RunWindow::parse(text), None, "{text}");
        }
    }
}
