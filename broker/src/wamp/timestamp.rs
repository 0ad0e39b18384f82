//! Times as the specification writes them: `2013-12-21T13:43:11.000Z`, always UTC.
//!
//! The specification's examples have a colon before the milliseconds: that is read too, and never written. The
//! milliseconds may be missing.

const DAY_MS: u64 = 86_400_000;

/// Writes a time in milliseconds since 1970.
pub(super) fn write(time_ms: u64) -> String {
    let (year, month, day) = date(time_ms / DAY_MS);
    let ms = time_ms % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Reads one, from 1970 on.
pub(super) fn read(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits
            .iter()
            .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
    };
    let has = |at: usize, signs: &[u8]| text.get(at).is_some_and(|sign| signs.contains(sign));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let ms = match text.len() {
        19 => 0,
        23 if has(19, b".:") => number(20, 23)?,
        _ => return None,
    };
    let signs = has(4, b"-") && has(7, b"-") && has(10, b"T") && has(13, b":") && has(16, b":");
    if !signs || year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day);
    // What is no day of that month comes back as another.
    (date(days) == (year, month, day))
        .then_some(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// The days from 1970 to a date, by eras of 400 years that begin in March.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date after so many days from 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_387_633_391_007, "2013-12-21T13:43:11.007Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!((write(time_ms).as_str(), read(text)), (text, Some(time_ms)));
        }
        for day in 0..60_000 {
            let (year, month, date) = date(day);
            assert_eq!(days(year, month, date), day);
        }
        assert_eq!(read("2013-12-21T13:43:11:007Z"), Some(1_387_633_391_007));
        assert_eq!(read("2013-12-21T13:43:11Z"), Some(1_387_633_391_000));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "Z",
            "2013-12-21",
            "2013-12-21T13:43:11.007",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-00-01T00:00:00Z",
            "2013-01-00T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01 00:00:00Z",
            "2013-01-01T00:00:00.0Z",
            "2013-01-01T00:00:00.+12Z",
            "\u{e4}013-01-01T00:00:0Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
