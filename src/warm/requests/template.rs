//! Texts with placeholders, and where their values come from. Pure but for the clock and the first random number.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::client::url::{encode, is_unreserved};

/// How to fix any problem with a placeholder.
pub const HELP: &str = "placeholders are {{random:1-1000}}, {{one-of:a,b,c}}, {{date}}, {{date:%Y-%m-%d}}, {{counter}} and \
                        {{uuid}}; a literal `{{` is written `{{{{`";
/// RFC 3339, the date alone.
const DATE: &str = "%Y-%m-%d";

/// A text, and what is put in.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(String),
    /// From the first to the second, both included.
    Random(u64, u64),
    OneOf(Vec<String>),
    /// As in strftime(3), in UTC.
    Date(String),
    Counter,
    Uuid,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with a placeholder; [`HELP`] says how to fix it.
    pub fn read(mut text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        while let Some((before, rest)) = text.split_once("{{") {
            literal.push_str(before);
            if let Some(rest) = rest.strip_prefix("{{") {
                literal.push_str("{{");
                text = rest;
                continue;
            }
            let Some((inner, rest)) = rest.split_once("}}") else {
                return Err("a placeholder begins with `{{` and has no `}}`".into());
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::read(inner)?);
            text = rest;
        }
        literal.push_str(text);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Template(pieces))
    }

    /// The text, where nothing is put in.
    pub fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text as it is this time. In a URL (`is_encoded`) only unreserved characters (RFC 3986 section 2.3) are put in
    /// as they are.
    pub fn fill(&self, draw: &mut Draw<'_>, is_encoded: bool) -> Vec<u8> {
        let mut filled = Vec::new();
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(text) => {
                    filled.extend_from_slice(text.as_bytes());
                    continue;
                }
                Piece::Random(first, last) => draw.chance.between(*first, *last).to_string(),
                Piece::OneOf(values) => {
                    let last = values.len().saturating_sub(1) as u64;
                    let at = usize::try_from(draw.chance.between(0, last)).unwrap_or(0);
                    values.get(at).cloned().unwrap_or_default()
                }
                Piece::Date(format) => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    show_date(format, now.as_secs())
                }
                Piece::Counter => draw.count().to_string(),
                Piece::Uuid => draw.chance.uuid(),
            };
            if is_encoded {
                filled.extend_from_slice(encode(value.as_bytes(), &is_unreserved).as_bytes());
            } else {
                filled.extend_from_slice(value.as_bytes());
            }
        }
        filled
    }
}

impl Piece {
    fn read(inner: &str) -> Result<Piece, String> {
        let wrong = |why: &str| Err(format!("the placeholder `{{{{{}}}}}` {why}", inner.escape_debug()));
        let (name, value) = match inner.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (inner, None),
        };
        match (name, value) {
            ("counter", None) => Ok(Piece::Counter),
            ("uuid", None) => Ok(Piece::Uuid),
            ("date", None) => Ok(Piece::Date(DATE.into())),
            ("date", Some("")) => wrong("has an empty format"),
            ("date", Some(format)) => match unknown_in(format) {
                None => Ok(Piece::Date(format.into())),
                Some(letter) => wrong(&format!(
                    "has `%{}`, which is not one of %Y %m %d %H %M %S %F %T %j %s %z %%",
                    letter.escape_debug()
                )),
            },
            ("random", Some(range)) => match range.split_once('-').map(|(first, last)| (number(first), number(last))) {
                Some((Some(first), Some(last))) if first <= last => Ok(Piece::Random(first, last)),
                Some((Some(_), Some(_))) => wrong("has a range whose end is before its beginning"),
                _ => wrong("has no range of whole numbers such as 1-1000"),
            },
            ("random", None) => wrong("has no range of whole numbers such as 1-1000"),
            ("one-of", None | Some("")) => wrong("has nothing to choose from"),
            ("one-of", Some(values)) => Ok(Piece::OneOf(values.split(',').map(Into::into).collect())),
            _ => wrong("is not known"),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The first letter after a `%` that [`show_date`] does not know.
fn unknown_in(format: &str) -> Option<char> {
    let mut letters = format.chars();
    while letters.any(|c| c == '%') {
        match letters.next() {
            Some('Y' | 'm' | 'd' | 'H' | 'M' | 'S' | 'F' | 'T' | 'j' | 's' | 'z' | '%') => {}
            other => return Some(other.unwrap_or(' ')),
        }
    }
    None
}

/// A time of the Gregorian calendar in UTC.
fn show_date(format: &str, seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`, for days since 1970: eras of 400 years that begin in March.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + 400 * era + u64::from(month <= 2);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // January 1 is day 306 of a year that begins in March, March 1 is day 60 or 61 of one that begins in January.
    let of_january = if month <= 2 { day_of_year - 305 } else { day_of_year + 60 + u64::from(is_leap) };
    let mut shown = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            shown.push(letter);
            continue;
        }
        let mut put = |number: u64, width: usize| {
            let digits = number.to_string();
            (digits.len()..width).for_each(|_| shown.push('0'));
            shown.push_str(&digits);
        };
        match letters.next() {
            Some('Y') => put(year, 4),
            Some('m') => put(month, 2),
            Some('d') => put(day, 2),
            Some('H') => put(second / 3600, 2),
            Some('M') => put(second / 60 % 60, 2),
            Some('S') => put(second % 60, 2),
            Some('j') => put(of_january, 3),
            Some('s') => put(seconds, 0),
            Some('F') => shown.push_str(&show_date(DATE, seconds)),
            Some('T') => shown.push_str(&show_date("%H:%M:%S", seconds)),
            Some('z') => shown.push_str("+0000"),
            Some(other) => shown.push(other),
            None => {}
        }
    }
    shown
}

/// Where placeholders get their values: random numbers and a counter. Owned by one run.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
    count: u64,
}

impl Default for Chance {
    /// Seeded by the kernel.
    fn default() -> Self {
        let mut seed = [0; 8];
        // Early after boot the kernel has nothing to give yet; then the clock's nanoseconds are chance enough.
        let _ = getrandom(&mut seed, GetRandomFlags::NONBLOCK);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::seeded(u64::from_ne_bytes(seed) ^ now.as_secs().rotate_left(32) ^ u64::from(now.subsec_nanos()))
    }
}

impl Chance {
    /// The same values each time, for tests.
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed, count: 0 }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, and good enough for what is no secret.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// A number from the first to the last, both included.
    fn between(&mut self, first: u64, last: u64) -> u64 {
        let many = u128::from(last.saturating_sub(first)) + 1;
        // The upper half of the product is below `many`; what it favours is less than 2^-64 of it.
        let below = (u128::from(self.number()) * many) >> 64;
        first.saturating_add(u64::try_from(below).unwrap_or(0))
    }

    /// RFC 9562 section 5.4.
    fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        let (left, right) = bytes.split_at_mut(8);
        left.copy_from_slice(&self.number().to_be_bytes());
        right.copy_from_slice(&self.number().to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut shown = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                shown.push('-');
            }
            shown.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
        }
        shown
    }
}

/// The values for one request: its counter is the same wherever it stands.
pub struct Draw<'c> {
    chance: &'c mut Chance,
    count: Option<u64>,
}

impl<'c> Draw<'c> {
    pub fn new(chance: &'c mut Chance) -> Self {
        Self { chance, count: None }
    }

    fn count(&mut self) -> u64 {
        *self.count.get_or_insert_with(|| {
            self.chance.count = self.chance.count.wrapping_add(1);
            self.chance.count
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_placeholders() {
        use Piece::{Counter, Date, OneOf, Random, Text, Uuid};
        let text = |text: &str| Text(text.into());
        for (typed, pieces) in [
            ("", vec![]),
            ("a}}b{", vec![text("a}}b{")]),
            ("{{{{x}}", vec![text("{{x}}")]),
            ("{{{{{{uuid}}", vec![text("{{"), Uuid]),
            ("a{{random:1-50}}b{{counter}}", vec![text("a"), Random(1, 50), text("b"), Counter]),
            ("{{random:0-18446744073709551615}}", vec![Random(0, u64::MAX)]),
            ("{{one-of:red shoes,,{x}}}", vec![OneOf(vec!["red shoes".into(), String::new(), "{x".into()]), text("}")]),
            ("{{date}}{{date:%H:%M}}", vec![Date("%Y-%m-%d".into()), Date("%H:%M".into())]),
        ] {
            assert_eq!(Template::read(typed), Ok(Template(pieces)), "{typed}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_placeholder() {
        for (typed, why) in [
            ("a{{b", "a placeholder begins with `{{` and has no `}}`"),
            ("{{rand}}", "the placeholder `{{rand}}` is not known"),
            ("{{}}", "the placeholder `{{}}` is not known"),
            ("{{ uuid }}", "the placeholder `{{ uuid }}` is not known"),
            ("{{uuid:4}}", "the placeholder `{{uuid:4}}` is not known"),
            ("{{\n}}", "the placeholder `{{\\n}}` is not known"),
            ("{{random}}", "the placeholder `{{random}}` has no range of whole numbers such as 1-1000"),
            ("{{random:5}}", "the placeholder `{{random:5}}` has no range of whole numbers such as 1-1000"),
            ("{{random:-1-5}}", "the placeholder `{{random:-1-5}}` has no range of whole numbers such as 1-1000"),
            ("{{random:+1-5}}", "the placeholder `{{random:+1-5}}` has no range of whole numbers such as 1-1000"),
            (
                "{{random:0-18446744073709551616}}",
                "the placeholder `{{random:0-18446744073709551616}}` has no range of whole numbers such as 1-1000",
            ),
            ("{{random:5-1}}", "the placeholder `{{random:5-1}}` has a range whose end is before its beginning"),
            ("{{one-of}}", "the placeholder `{{one-of}}` has nothing to choose from"),
            ("{{one-of:}}", "the placeholder `{{one-of:}}` has nothing to choose from"),
            ("{{date:}}", "the placeholder `{{date:}}` has an empty format"),
            (
                "{{date:%Q}}",
                "the placeholder `{{date:%Q}}` has `%Q`, which is not one of %Y %m %d %H %M %S %F %T %j %s %z %%",
            ),
            (
                "{{date:5%}}",
                "the placeholder `{{date:5%}}` has `% `, which is not one of %Y %m %d %H %M %S %F %T %j %s %z %%",
            ),
        ] {
            assert_eq!(Template::read(typed), Err(why.into()), "{typed}");
        }
    }

    #[test]
    fn shows_dates() {
        for (seconds, format, shown) in [
            (0, "%Y-%m-%dT%H:%M:%SZ", "1970-01-01T00:00:00Z"),
            (1_795_312_921, "%F %T%z %j %s %%", "2026-11-22 02:02:01+0000 326 1795312921 %"),
            (951_782_399, "%F %j", "2000-02-28 059"),
            (951_782_400, "%F %j", "2000-02-29 060"),
            (951_868_800, "%F %j", "2000-03-01 061"),
            (978_220_800, "%F %j", "2000-12-31 366"),
            (1_072_915_199, "%F %T %j", "2003-12-31 23:59:59 365"),
            (4_107_542_400, "%F %j", "2100-03-01 060"),
        ] {
            assert_eq!(show_date(format, seconds), shown, "{seconds}");
            assert_eq!(unknown_in(format), None);
        }
    }

    #[test]
    fn fills_in() {
        let mut chance = Chance::seeded(1);
        let fill = |text: &str, is_encoded: bool, chance: &mut Chance| {
            let filled = Template::read(text).expect(text).fill(&mut Draw::new(chance), is_encoded);
            String::from_utf8(filled).expect("text")
        };
        assert_eq!(fill("a/{{one-of:ü &%2F~._-}}?b c", true, &mut chance), "a/%C3%BC%20%26%252F~._-?b c");
        assert_eq!(fill("{{one-of:ü &\n}}", false, &mut chance), "ü &\n");
        assert_eq!(fill("{{counter}} {{counter}}", false, &mut chance), "1 1");
        assert_eq!(fill("{{counter}} {{{{counter}}", false, &mut chance), "2 {{counter}}");
        let mut seen = [0; 7];
        for _ in 0..600 {
            let number: usize = fill("{{random:1-6}}", true, &mut chance).parse().expect("a number");
            seen[number] += 1;
        }
        assert!(seen[0] == 0 && seen[1..].iter().all(|times| (60..=140).contains(times)), "{seen:?}");
        for text in ["{{random:7-7}}", "{{one-of:7}}"] {
            assert_eq!(fill(text, true, &mut chance), "7");
        }
        let whole = fill("{{random:0-18446744073709551615}}", true, &mut chance);
        assert!(whole.parse::<u64>().is_ok_and(|number| number > 1_000_000), "{whole}");
    }

    #[test]
    fn makes_uuids_of_version_4() {
        let (mut one, mut other) = (Chance::default(), Chance::default());
        let uuids: Vec<String> = (0..100).map(|_| one.uuid()).chain((0..100).map(|_| other.uuid())).collect();
        for (at, uuid) in uuids.iter().enumerate() {
            let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
            assert!(&uuid[14..15] == "4" && "89ab".contains(&uuid[19..20]), "{uuid}");
            assert!(uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{uuid}");
            assert!(!uuids[..at].contains(uuid), "{uuid}");
        }
    }
}
