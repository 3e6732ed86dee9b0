//! Dates, and their text.

use core::fmt;

/// The first second that has a text: the beginning of the year 0.
pub const DATE_SECONDS_MIN: f64 = -62_167_219_200.0;
/// The second behind the last one that has a text: the beginning of the year 10000.
pub const DATE_SECONDS_MAX: f64 = 253_402_300_800.0;

const DAY_SECONDS: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// A moment: seconds since the beginning of 1970, in UTC.
///
/// The binary form keeps every bit of it. Texts keep microseconds, of the years 0 to 9999.
///
/// ```
/// use twinspan_llsd::Date;
///
/// let date = Date::parse("2006-02-01T14:29:53.43Z").unwrap();
/// assert_eq!(date, Date(1_138_804_193.43));
/// assert_eq!(date.to_text().as_deref(), Some("2006-02-01T14:29:53.430000Z"));
/// ```
#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Date(pub f64);

impl Date {
    /// Reads `YYYY-MM-DDTHH:MM:SS`, perhaps with a fraction, perhaps with `Z` at the end or an
    /// offset like `+00:00`. The time, or its seconds, may be missing. `None` when it is no date.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
        let mut parts = day.splitn(3, '-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if year.len() != 4 {
            return None;
        }
        let (year, month, day) = (number(year)?, number(month)?, number(day)?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
            return None;
        }
        let days = days_from_civil(year, month, day);
        let (time, zone) = split_zone(time)?;
        let micros = parse_time(time)?;
        let whole = days * DAY_SECONDS + micros / MICROS - zone;
        Some(Self(whole as f64 + (micros % MICROS) as f64 / MICROS as f64))
    }

    /// The text, in microseconds where it has a fraction; `None` outside of the years 0 to 9999.
    pub fn to_text(self) -> Option<String> {
        if !(DATE_SECONDS_MIN..DATE_SECONDS_MAX).contains(&self.0) {
            return None;
        }
        let whole = self.0.floor();
        let mut micros = ((self.0 - whole) * MICROS as f64).round() as i64;
        let mut whole = whole as i64;
        if micros >= MICROS {
            micros -= MICROS;
            whole += 1;
        }
        if whole >= DATE_SECONDS_MAX as i64 {
            return None;
        }
        let (year, month, day) = civil_from_days(whole.div_euclid(DAY_SECONDS));
        let second = whole.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if micros > 0 {
            text.push_str(&format!(".{micros:06}"));
        }
        text.push('Z');
        Some(text)
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_text() {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} s since 1970", self.0),
        }
    }
}

/// A number of digits alone.
fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A time and the seconds that its zone is ahead of UTC.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (time, zone) = time.split_at_checked(at)?;
    let (sign, zone) = if let Some(zone) = zone.strip_prefix('+') {
        (1, zone)
    } else {
        (-1, zone.strip_prefix('-')?)
    };
    let (hours, minutes) = match zone.split_once(':') {
        Some((hours, minutes)) => (number(hours)?, number(minutes)?),
        None if zone.len() == 4 => (number(zone.get(..2)?)?, number(zone.get(2..)?)?),
        None => (number(zone)?, 0),
    };
    (hours < 24 && minutes < 60).then_some((time, sign * (hours * 3_600 + minutes * 60)))
}

/// Microseconds since midnight; 0 of no text. Digits behind the sixth are dropped.
fn parse_time(time: &str) -> Option<i64> {
    if time.is_empty() {
        return Some(0);
    }
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) = match parts.next() {
        Some(second) => second.split_once('.').unwrap_or((second, "")),
        None => ("0", ""),
    };
    let second = number(second)?;
    // A leap second counts as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(core::iter::repeat(b'0')).take(6);
    let micros = digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some((hour * 3_600 + minute * 60 + second) * MICROS + micros)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970. The year is taken to begin in March, so that the leap day ends it.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_have_their_texts() {
        for (seconds, text) in [
            (0.0, "1970-01-01T00:00:00Z"),
            (1_138_804_193.0, "2006-02-01T14:29:53Z"),
            (951_782_400.5, "2000-02-29T00:00:00.500000Z"),
            (-0.25, "1969-12-31T23:59:59.750000Z"),
            (DATE_SECONDS_MIN, "0000-01-01T00:00:00Z"),
            (DATE_SECONDS_MAX - 1.0, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Date(seconds).to_text().as_deref(), Some(text));
            assert_eq!(Date::parse(text), Some(Date(seconds)), "{text}");
        }
    }

    #[test]
    fn other_ways_to_write_a_date_are_read() {
        for text in [
            "2006-02-01T14:29:53",
            "2006-02-01 14:29:53",
            "2006-02-01T16:29:53+02:00",
            "2006-02-01T13:29:53-0100",
            " 2006-02-01T14:29:53.0000009Z ",
        ] {
            assert_eq!(Date::parse(text), Some(Date(1_138_804_193.0)), "{text}");
        }
        assert_eq!(Date::parse("2006-02-01"), Some(Date(1_138_752_000.0)));
        assert_eq!(Date::parse("1969-12-31T23:59:60Z"), Some(Date(0.0)));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "now",
            "2006",
            "2006-13-01",
            "2006-02-29",
            "2006-02-01T24:00:00Z",
            "2006-02-01T14:29:53.4x",
            "206-02-01",
            "2006-02-01T14:29:53+99:00",
            "2006-02-01T14:29:53é",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
        for seconds in [f64::NAN, f64::INFINITY, DATE_SECONDS_MAX, DATE_SECONDS_MIN - 1.0] {
            assert_eq!(Date(seconds).to_text(), None, "{seconds}");
        }
        assert_eq!(Date(DATE_SECONDS_MAX - 0.000_000_1).to_text(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_date_or_is_not(text in "\\PC{0,40}") {
            let _ = Date::parse(&text);
        }

        #[test]
        fn texts_keep_microseconds(micros in -62_167_219_200_000_000_i64..253_402_300_799_000_000) {
            let date = Date(micros as f64 / 1e6);
            let again = Date::parse(&date.to_text().unwrap()).unwrap();
            // A double of this size has steps of up to 30 µs.
            prop_assert!((again.0 - date.0).abs() <= 3.1e-5, "{date:?} {again:?}");
        }
    }
}
