//! How a process ended, and the one number that shells make of it.

use std::fmt;

use super::names::name_of_signal;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(u8),
    Signal(i32),
}

impl ExitStatus {
    /// The exit code that passes this on: the code itself, or 128+N for a signal, as shells do.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            // Signals end at 64, so the sum fits.
            Self::Signal(signal) => 128_u8.wrapping_add(signal as u8),
        }
    }

    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by {}", name_of_signal(*signal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_the_number_and_the_words_that_shells_make() {
        for (status, code, words) in [
            (ExitStatus::Code(0), 0, "exit code 0"),
            (ExitStatus::Code(255), 255, "exit code 255"),
            (ExitStatus::Signal(9), 137, "ended by SIGKILL"),
            (ExitStatus::Signal(15), 143, "ended by SIGTERM"),
            (ExitStatus::Signal(37), 165, "ended by SIGRTMIN+3"),
            (ExitStatus::Signal(64), 192, "ended by SIGRTMAX"),
        ] {
            assert_eq!((status.shell_code(), status.to_string().as_str()), (code, words));
        }
    }
}
