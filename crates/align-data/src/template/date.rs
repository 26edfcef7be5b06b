//! The date for templates that print it (`strftime_now`).

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment, in seconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub i64);

impl Moment {
    pub(super) fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self(seconds as i64)
    }

    /// Midnight of a day of the proleptic Gregorian calendar.
    ///
    /// # Source
    /// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
    pub(super) fn of_day(year: i64, month: u32, day: u32) -> Self {
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year - era * 400;
        let shifted = (i64::from(month) + 9) % 12;
        let of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
        Self((era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468) * 86_400)
    }

    /// Year, month, day: `civil_from_days` of the same source.
    fn date(self) -> (i64, usize, i64) {
        let days = self.0.div_euclid(86_400) + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days - era * 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month as usize, day)
    }

    /// The directives templates use: `%Y %y %m %d %e %B %b %A %a %H %M %S %j %%`, and `%-d` forms without padding.
    pub(super) fn format(self, format: &str) -> String {
        let (year, month, day) = self.date();
        let second = self.0.rem_euclid(86_400);
        let weekday = WEEKDAYS[self.0.div_euclid(86_400).rem_euclid(7) as usize];
        let of_year = self.0.div_euclid(86_400) - Self::of_day(year, 1, 1).0 / 86_400 + 1;
        let mut out = String::new();
        let mut rest = format.chars().peekable();
        while let Some(letter) = rest.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            let bare = rest.next_if_eq(&'-').is_some();
            let padded = |value: i64, width: usize| match bare {
                true => value.to_string(),
                false => format!("{value:0width$}"),
            };
            match rest.next() {
                Some('Y') => out.push_str(&year.to_string()),
                Some('y') => out.push_str(&padded(year.rem_euclid(100), 2)),
                Some('m') => out.push_str(&padded(month as i64, 2)),
                Some('d') => out.push_str(&padded(day, 2)),
                Some('e') => out.push_str(&format!("{day:2}")),
                Some('B') => out.push_str(MONTHS[month - 1]),
                Some('b') => out.push_str(&MONTHS[month - 1][..3]),
                Some('A') => out.push_str(weekday),
                Some('a') => out.push_str(&weekday[..3]),
                Some('H') => out.push_str(&padded(second / 3600, 2)),
                Some('M') => out.push_str(&padded(second / 60 % 60, 2)),
                Some('S') => out.push_str(&padded(second % 60, 2)),
                Some('j') => out.push_str(&padded(of_year, 3)),
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_are_written_as_the_c_library_writes_them() {
        // 29 February 2000 was a Tuesday, 26 July 2024 a Friday and the 208th day of its year (calendars).
        assert_eq!(Moment::of_day(2000, 2, 29).format("%A %d %B %Y"), "Tuesday 29 February 2000");
        assert_eq!(Moment::of_day(2024, 7, 26).format("%a %d %b %y %j"), "Fri 26 Jul 24 208");
        // 2001-09-09 01:46:40 UTC is a thousand million seconds after 1970.
        assert_eq!(Moment(1_000_000_000).format("%Y-%m-%d %H:%M:%S %-d%%"), "2001-09-09 01:46:40 9%");
    }
}
