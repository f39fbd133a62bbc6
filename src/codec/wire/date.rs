//! Reads the timestamp extension of MessagePack, which JavaScript's `Date` becomes.

use std::fmt::Write;

use serde::de::Error as _;

use super::decode_error::Error;

/// The type of the timestamp extension.
pub(super) const EXTENSION: i8 = -1;

/// The type under which msgpackr writes its records.
const MSGPACKR_RECORD: i8 = 0x72;

/// A point in time, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    seconds: i64,
    nanos: u32,
}

/// The greatest distance of a `Date` from 1970, in seconds. The milliseconds of times beyond it
/// could overflow.
const MAX_SECONDS: i64 = 8_640_000_000_000;

impl Date {
    /// Reads an extension; `None` for an invalid `Date`, which JSON writes as null.
    pub(super) fn read(kind: i8, bytes: &[u8]) -> Result<Option<Self>, Error> {
        match (kind, bytes) {
            (EXTENSION, [_]) => Ok(None),
            (EXTENSION, bytes) => {
                let refused = || Error::custom("a timestamp out of range");
                Self::from_timestamp(bytes).map(Some).ok_or_else(refused)
            }
            (MSGPACKR_RECORD, _) => Err(Error::custom(
                "a record of msgpackr: create its `Packr` with useRecords: false",
            )),
            (kind, _) => Err(Error::custom(format_args!("unknown extension type {kind}"))),
        }
    }

    /// Reads the three sizes of the extension; `None` for any other size and for times out of
    /// range.
    fn from_timestamp(bytes: &[u8]) -> Option<Self> {
        let (seconds, nanos) = if let Ok(seconds) = bytes.try_into() {
            (i64::from(u32::from_be_bytes(seconds)), 0)
        } else if let Ok(both) = bytes.try_into() {
            let both = u64::from_be_bytes(both);
            // 30 bits of nanoseconds, then 34 of seconds.
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, u32::try_from(both >> 34).ok()?)
        } else {
            let (nanos, seconds) = bytes.split_first_chunk::<4>()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        };
        let is_valid = nanos < 1_000_000_000 && seconds.checked_abs()? <= MAX_SECONDS;
        is_valid.then_some(Self { seconds, nanos })
    }

    /// Returns milliseconds since 1970, as `Date.getTime` does.
    pub(super) fn millis(self) -> i64 {
        self.seconds * 1_000 + i64::from(self.nanos / 1_000_000)
    }

    /// Returns RFC 3339 in UTC, as `Date.toISOString` does and JSON has it. Digits beyond
    /// milliseconds, which no `Date` has, are kept.
    pub(super) fn text(self) -> String {
        let (year, month, day) = civil(self.seconds.div_euclid(86_400));
        let second = self.seconds.rem_euclid(86_400);
        let mut text = match year {
            0..=9_999 => format!("{year:04}"),
            _ => format!("{year:+07}"),
        };
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        // Writing to a string does not fail.
        let _ = write!(text, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let _ = match self.nanos % 1_000_000 {
            0 => write!(text, ".{:03}Z", self.nanos / 1_000_000),
            _ => write!(text, ".{:09}Z", self.nanos),
        };
        text
    }
}

/// Returns year, month and day of the Gregorian calendar, of a number of days since 1 January
/// 1970. The calculation begins years in March, so that the leap day is the last day of a year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days of 400 years
    let days = days + 719_468; // since 1 March of the year 0
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Option<String> {
        Date::from_timestamp(bytes).map(Date::text)
    }

    #[test]
    fn all_three_sizes_are_read() {
        let small = [0x65, 0x53, 0xf1, 0x00];
        assert_eq!(text(&small).unwrap(), "2023-11-14T22:13:20.000Z");
        let middle = [0x1d, 0x53, 0x53, 0x00, 0x65, 0x53, 0xf1, 0x00];
        assert_eq!(text(&middle).unwrap(), "2023-11-14T22:13:20.123Z");
        let mut large = [0xff; 12];
        large[..4].copy_from_slice(&999_000_000_u32.to_be_bytes());
        assert_eq!(text(&large).unwrap(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Date::from_timestamp(&large).unwrap().millis(), -1);
        for seconds in [MAX_SECONDS + 1, -MAX_SECONDS - 1, i64::MAX, i64::MIN] {
            large[..4].fill(0);
            large[4..].copy_from_slice(&seconds.to_be_bytes());
            assert_eq!(text(&large), None, "{seconds}");
        }
        for wrong in [&[][..], &[0xff], &[0; 5], &[0xff; 8], &[0xff; 12], &[0x7f; 12]] {
            assert_eq!(text(wrong), None, "{wrong:x?}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let text = |seconds: i64| Date { seconds, nanos: 1 }.text();
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(951_868_800), "2000-03-01T00:00:00.000000001Z");
        assert_eq!(text(4_107_542_399), "2100-02-28T23:59:59.000000001Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00.000000001Z");
        assert_eq!(text(-62_167_219_200), "0000-01-01T00:00:00.000000001Z");
        assert_eq!(text(-62_167_219_201), "-000001-12-31T23:59:59.000000001Z");
        assert_eq!(text(253_402_300_800), "+010000-01-01T00:00:00.000000001Z");
        assert_eq!(text(MAX_SECONDS), "+275760-09-13T00:00:00.000000001Z");
        assert_eq!(text(-MAX_SECONDS), "-271821-04-20T00:00:00.000000001Z");
    }
}
