//! The names of the signals. Pure.

/// The first real-time signal as users count: glibc's 34, which shells, systemd and Docker's `STOPSIGNAL` mean,
/// also in a binary built with musl, which keeps 34 for itself and calls 35 the first.
const RTMIN: i32 = 34;
/// The last signal (signal(7)).
pub const LAST: i32 = 64;

/// 1 to 31 on x86_64 and aarch64 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Reads `QUIT`, `SIGQUIT`, `quit`, `3`, `RTMIN+3` or `RTMAX-1`; `None` for what is not a signal.
pub fn signal_by_name(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index).ok().map(|index| index + 1);
    }
    let number = match name {
        "IOT" => return Some(6),
        "CLD" => return Some(17),
        "POLL" => return Some(29),
        "RTMIN" => RTMIN,
        "RTMAX" => LAST,
        _ => match name.strip_prefix("RTMIN+") {
            Some(offset) => RTMIN.checked_add(small(offset)?)?,
            None => LAST - small(name.strip_prefix("RTMAX-")?)?,
        },
    };
    (RTMIN..=LAST).contains(&number).then_some(number)
}

/// Digits alone: `parse` would take `+3` and `-3` too.
fn small(text: &str) -> Option<i32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `SIGQUIT`, `SIGRTMIN+3`, `SIGRTMAX`; `signal 99` for what has no name.
pub fn name_of_signal(signal: i32) -> String {
    let known = usize::try_from(signal).ok().and_then(|number| NAMES.get(number.checked_sub(1)?));
    match (known, signal) {
        (Some(name), _) => format!("SIG{name}"),
        (None, RTMIN) => "SIGRTMIN".into(),
        (None, LAST) => "SIGRTMAX".into(),
        (None, RTMIN..LAST) => format!("SIGRTMIN+{}", signal - RTMIN),
        _ => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_names_that_people_write() {
        for (text, signal) in [
            ("QUIT", Some(3)),
            ("SIGQUIT", Some(3)),
            ("sigquit", Some(3)),
            ("3", Some(3)),
            (" TERM ", Some(15)),
            ("SIGIOT", Some(6)),
            ("CLD", Some(17)),
            ("POLL", Some(29)),
            ("RTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMIN+30", Some(64)),
            ("RTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
            ("64", Some(64)),
            ("65", None),
            ("0", None),
            ("-9", None),
            ("RTMIN+31", None),
            ("RTMIN+-3", None),
            ("RTMIN-1", None),
            ("RTMAX-31", None),
            ("RTMAX-99999999999", None),
            ("SIGSIGQUIT", None),
            ("", None),
        ] {
            assert_eq!(signal_by_name(text), signal, "{text}");
        }
    }

    #[test]
    fn every_name_reads_back() {
        for signal in (1..=31).chain(34..=LAST) {
            assert_eq!(signal_by_name(&name_of_signal(signal)), Some(signal));
        }
        assert_eq!(name_of_signal(33), "signal 33");
        assert_eq!(name_of_signal(-1), "signal -1");
    }
}
