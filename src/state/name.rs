//! Names of snapshots: `sessions.0000000042.20261122T140355Z.tar.zst`. Pure.
//!
//! A number that only grows orders them, and not the clock, which may be set back and differs between nodes; the time is
//! for people. `ls` sorts them oldest first.

use std::fmt;

use super::Compression;

/// What a snapshot is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// The name of the state: that of its step.
    pub state: String,
    /// One more than the highest number of this state in its store.
    pub number: u64,
    /// Seconds since 1970, UTC.
    pub time: u64,
    pub compression: Compression,
}

/// Ten digits: a snapshot each second for three hundred years.
const DIGITS: usize = 10;

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:0DIGITS$}.{}.{}",
            self.state,
            self.number,
            show_compact(self.time),
            self.compression.extension()
        )
    }
}

impl SnapshotName {
    /// Reads the name of a file or an object; `None` when it is no snapshot's.
    pub fn parse(file: &str) -> Option<Self> {
        let (rest, compression) = Compression::ALL.into_iter().find_map(|compression| {
            let rest = file.strip_suffix(compression.extension())?.strip_suffix('.')?;
            Some((rest, compression))
        })?;
        let (rest, time) = rest.rsplit_once('.')?;
        let (state, number) = rest.rsplit_once('.')?;
        if number.len() < DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) || is_unusable(state).is_some() {
            return None;
        }
        Some(Self { state: state.into(), number: number.parse().ok()?, time: parse_compact(time)?, compression })
    }

    /// Orders snapshots of one state, newest last.
    pub fn order(&self) -> (u64, u64) {
        (self.number, self.time)
    }
}

/// Why a state cannot have this name, if it cannot: it becomes a part of a file's name.
pub fn is_unusable(state: &str) -> Option<&'static str> {
    match state {
        "" => Some("it is empty"),
        _ if state.contains('/') => Some("it has a slash"),
        _ if state.starts_with('.') => Some("it begins with a dot"),
        _ if state.chars().any(char::is_control) => Some("it has a control character"),
        // 255 bytes are Linux's limit for a file's name; ours adds up to 50.
        _ if state.len() > 200 => Some("it is longer than 200 bytes"),
        _ => None,
    }
}

/// `20261122T140355Z`: ISO 8601 in its basic form, which needs no character that a shell or a URL minds.
fn show_compact(time: u64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2026-11-22T14:03:55Z`: RFC 3339.
pub fn show_time(time: u64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn parse_compact(text: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u64>().ok()).flatten()
    };
    if text.len() != 16 || text.as_bytes()[8] != b'T' || text.as_bytes()[15] != b'Z' {
        return None;
    }
    let civil = Civil {
        year: digits(0, 4)?,
        month: digits(4, 6)?,
        day: digits(6, 8)?,
        hour: digits(9, 11)?,
        minute: digits(11, 13)?,
        second: digits(13, 15)?,
    };
    let time = civil.seconds()?;
    // The 31st of February and the 25th hour come back as another time.
    (show_compact(time) == text).then_some(time)
}

/// A moment in UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

const DAY: u64 = 86_400;

impl Civil {
    /// Howard Hinnant's `civil_from_days`: the proleptic Gregorian calendar in eras of 400 years that begin in March.
    fn of(time: u64) -> Self {
        let (days, rest) = (time / DAY + 719_468, time % DAY);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Seconds since 1970 (Hinnant's `days_from_civil`); `None` before that, or when the month or day cannot be.
    fn seconds(&self) -> Option<u64> {
        if !(1..=12).contains(&self.month) || self.day == 0 || self.year < 1970 {
            return None;
        }
        let year = self.year - u64::from(self.month <= 2);
        let (era, year_of_era) = (year / 400, year % 400);
        let shifted = (self.month + 9) % 12;
        let day_of_year = (153 * shifted + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
        Some(days * DAY + self.hour * 3600 + self.minute * 60 + self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went() {
        for (text, state, number, time) in [
            ("sessions.0000000042.20261122T140355Z.tar.zst", "sessions", 42, 1_795_356_235),
            ("save 1.v2.0000000001.19700101T000000Z.tar", "save 1.v2", 1, 0),
            ("x.12345678901.20240229T235959Z.tar.gz", "x", 12_345_678_901, 1_709_251_199),
            ("ü.0000000007.20000101T000000Z.tar.lz4", "ü", 7, 946_684_800),
        ] {
            let name = SnapshotName::parse(text).expect(text);
            assert_eq!((name.state.as_str(), name.number, name.time), (state, number, time), "{text}");
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn other_files_are_no_snapshots() {
        for text in [
            "",
            "sessions.tar.zst",
            ".sessions.0000000042.20261122T140355Z.tar.zst",
            "sessions.0000000042.20261122T140355Z.tar.zst.partial",
            "sessions.42.20261122T140355Z.tar.zst",
            "sessions.0000000042.20260231T000000Z.tar.zst",
            "sessions.0000000042.20261122T250000Z.tar.zst",
            "sessions.0000000042.20261122T140355Z.tar.xz",
            "sessions.00000000é.20261122T140355Z.tar",
            "sessions.+000000042.20261122T140355Z.tar",
            "sessions.99999999999999999999999.20261122T140355Z.tar",
        ] {
            assert_eq!(SnapshotName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let time = day * DAY + 12_345;
            assert_eq!(parse_compact(&show_compact(time)), Some(time));
        }
        assert_eq!(show_time(1_795_356_235), "2026-11-22T14:03:55Z");
    }
}
