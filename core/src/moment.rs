//! Times that callers give.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};
use thiserror::Error;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A time from outside: in UTC, in whole microseconds, of the years 1970 to 9999.
///
/// That is what can be told again in every form a time takes here: a `timestamptz` and the text of a backup hold no more digits and no other era, RFC 3339 no
/// other year, and both `time` and `sqlx` panic where a time leaves its years on the way to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(OffsetDateTime);

/// Why something is no [`Moment`]. The text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a time is written as in 2026-07-01T00:00:00Z, and lies in the years 1970 to 9999 of UTC")]
#[non_exhaustive]
pub struct BadMoment;

impl Moment {
    /// Takes a time as it is meant, at whatever offset; what is finer than a microsecond is cut off.
    pub fn new(at: OffsetDateTime) -> Result<Self, BadMoment> {
        let at =
            at.checked_to_offset(UtcOffset::UTC).filter(|at| (1970..=9999).contains(&at.year())).ok_or(BadMoment)?;
        let micros = at.microsecond();
        Ok(Self(at.replace_microsecond(micros).expect("a microsecond taken from a time is in range")))
    }

    /// Parses RFC 3339.
    pub fn parse(text: &str) -> Result<Self, BadMoment> {
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| BadMoment).and_then(Self::new)
    }
}

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        Self::parse(text)
    }
}

impl From<Moment> for OffsetDateTime {
    fn from(moment: Moment) -> Self {
        moment.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).expect("a year of four digits in UTC has a text"))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_time_outside_of_the_years_is_refused_and_the_last_within_is_taken() {
        for bad in [
            "0000-01-01T00:00:00Z",
            "0000-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T23:59:59-23:59",
            "10000-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-07-01",
            "",
            "never",
        ] {
            assert_eq!(Moment::parse(bad), Err(BadMoment), "{bad}");
        }
        for (good, told) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("1969-12-31T23:00:00-01:00", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+23:59", "9999-12-31T00:00:59Z"),
            ("2026-07-01T05:45:00.0000009+05:45", "2026-07-01T00:00:00Z"),
        ] {
            assert_eq!(Moment::parse(good).unwrap().to_string(), told);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_time_to_rfc_3339_is_refused_or_comes_back_the_same(
            (year, month, day) in (0..=9999_u16, 1..=12_u8, 1..=28_u8),
            (hour, minute, second, nanosecond) in (0..24_u8, 0..60_u8, 0..60_u8, 0..1_000_000_000_u32),
            (sign, hours, minutes) in ("[+-]", 0..24_u8, 0..60_u8),
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}{sign}{hours:02}:{minutes:02}");
            let moment = Moment::parse(&text);
            prop_assert!(moment.is_ok() || matches!(year, 0..=1970 | 9999), "{text}");
            if let Ok(moment) = moment {
                prop_assert_eq!(Moment::parse(&moment.to_string()), Ok(moment));
                let micros = OffsetDateTime::from(moment).unix_timestamp_nanos();
                prop_assert!(micros >= 0 && micros % 1_000 == 0);
            }
        }
    }
}
