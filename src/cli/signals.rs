//! Signals by name.

use crate::error::{Error, Result};
use nix::sys::signal::Signal;

/// The real-time signals that the C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal by number, by name with or without SIG, or as `RTMIN+n` and `RTMAX-n`.
///
/// # Errors
/// `InvalidArgument` for one that does not exist.
pub fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::invalid(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return (0..=RTMAX).contains(&number).then_some(number).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok().filter(|&offset| offset >= 0),
    };
    let realtime = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, '+').and_then(|offset| RTMIN.checked_add(offset))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, '-').and_then(|offset| RTMAX.checked_sub(offset))
    } else {
        let named = match name {
            "CLD" => "CHLD",
            "IOT" => "ABRT",
            "POLL" => "IO",
            other => other,
        };
        return format!("SIG{named}")
            .parse::<Signal>()
            .map(|found| found as i32)
            .map_err(|_| unknown());
    };
    realtime.filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_signal_has_a_number_and_several_names() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("IOT", 6),
            ("SIGCLD", 17),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "65", "-1", "FOO", "RTMIN+31", "RTMIN-1", "RTMAX-31", "SIGSIGTERM"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
