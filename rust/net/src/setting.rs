//! Checks that the settings of several services share.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::service::ConfigError;

/// Longest time that a setting may ask for: 30 days.
const MAX_SECONDS: f64 = 30.0 * 86_400.0;

/// The time setting `key` as a duration.
///
/// # Errors
///
/// [`ConfigError`] about `key` unless `seconds` is above 0 and at most 30 days.
pub fn duration(key: &str, seconds: f64) -> Result<Duration, ConfigError> {
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        let range = format!("above 0 and at most {MAX_SECONDS}");
        Err(ConfigError::new(key, format!("{seconds} is not a time in seconds {range}")))
    }
}

/// The setting `key`, checked against what is allowed.
///
/// # Errors
///
/// [`ConfigError`] about `key` if `value` is not in `allowed`.
pub fn within<T: PartialOrd + fmt::Display>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (least, most) = allowed.into_inner();
    Err(ConfigError::new(key, format!("{value} is not between {least} and {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_times_are_refused_by_name() {
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(duration("poll_timeout_s", seconds).unwrap_err().key, "poll_timeout_s");
        }
        assert_eq!(duration("poll_timeout_s", 0.5), Ok(Duration::from_millis(500)));
    }

    #[test]
    fn values_outside_their_range_are_refused_by_name() {
        assert_eq!(within("shards", 17, 1..=16).unwrap_err().key, "shards");
        assert_eq!(within("shards", 16, 1..=16), Ok(16));
    }
}
