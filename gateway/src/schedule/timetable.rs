//! `Timetable`: the times that a cron expression means in a time zone. Pure.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// When a schedule ticks.
///
/// Where clocks are put forward, a fixed time that does not exist is the first moment after the gap; where they are put back,
/// a fixed time that comes twice is the first of both. What repeats within the hour (`*` or `*/n`) leaves out what does not
/// exist, and ticks in both hours that are one on the clock.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// What is wrong with a timetable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not a cron expression.
    #[error("`{cron}` is not understood: {why}; write five fields, as in \"0 3 * * *\", or six with the second first")]
    Cron {
        /// The expression.
        cron: String,
        /// Why.
        why: String,
    },
    /// Not a time zone.
    #[error("there is no time zone `{0}`; write a name of the IANA database, as in \"Europe/Berlin\"")]
    Zone(String),
    /// Times that never come.
    #[error("`{0}` never comes, such as the 30th of February")]
    Never(String),
}

impl Timetable {
    /// Reads an expression and the name of a time zone. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// When one of them is not understood, or no time comes after `now`.
    pub fn parse(cron: &str, zone: &str, now: u64) -> Result<Self, TimetableError> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let not_cron = |why: String| TimetableError::Cron { cron: cron.to_owned(), why };
        let parsed = parser.parse(cron).map_err(|error| not_cron(error.to_string()))?;
        let zone = TimeZone::get(zone).map_err(|_| TimetableError::Zone(zone.to_owned()))?;
        let timetable = Self { cron: parsed, zone };
        match timetable.next(now) {
            Some(_) => Ok(timetable),
            None => Err(TimetableError::Never(cron.to_owned())),
        }
    }

    /// The first tick after a time, in milliseconds since 1970.
    pub fn next(&self, after: u64) -> Option<u64> {
        self.cron.find_next_occurrence(&self.at(after)?, false).ok().and_then(|time| ms(&time))
    }

    /// The last tick up to a time, that time included.
    pub fn last(&self, until: u64) -> Option<u64> {
        self.cron.find_previous_occurrence(&self.at(until)?, true).ok().and_then(|time| ms(&time))
    }

    fn at(&self, ms: u64) -> Option<Zoned> {
        let timestamp = Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
        Some(timestamp.to_zoned(self.zone.clone()))
    }
}

fn ms(time: &Zoned) -> Option<u64> {
    u64::try_from(time.timestamp().as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::rfc3339;

    /// The ticks after a time.
    fn ticks(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let timetable = Timetable::parse(cron, zone, time(after)).expect("a timetable");
        let next = |at: &u64| timetable.next(*at);
        std::iter::successors(timetable.next(time(after)), next).take(count).map(shown).collect()
    }

    fn time(text: &str) -> u64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond() as u64
    }

    fn shown(ms: u64) -> String {
        rfc3339(ms).replace(":00.000Z", "Z")
    }

    #[test]
    fn ticks_come_in_order_and_by_the_clock_of_the_zone() {
        let after = "2026-01-01T00:00:00Z";
        assert_eq!(ticks("0 3 * * *", "UTC", after, 2), ["2026-01-01T03:00Z", "2026-01-02T03:00Z"]);
        assert_eq!(ticks("0 3 * * *", "Europe/Berlin", after, 1), ["2026-01-01T02:00Z"]);
        assert_eq!(ticks("0 0 * * *", "UTC", after, 1), ["2026-01-02T00:00Z"], "the time itself is not after it");
        assert_eq!(ticks("*/30 * * * * *", "UTC", after, 2), ["2026-01-01T00:00:30.000Z", "2026-01-01T00:01Z"]);
        assert_eq!(ticks("0 9 * * MON-FRI", "UTC", "2026-01-03T00:00:00Z", 1), ["2026-01-05T09:00Z"]);
    }

    #[test]
    fn the_last_tick_includes_the_time_itself() {
        let timetable = Timetable::parse("0 3 * * *", "UTC", 0).expect("a timetable");
        let last = |until| timetable.last(time(until)).map(shown);
        assert_eq!(last("2026-01-02T03:00:00Z").as_deref(), Some("2026-01-02T03:00Z"));
        assert_eq!(last("2026-01-02T02:59:59.999Z").as_deref(), Some("2026-01-01T03:00Z"));
    }

    #[test]
    fn a_fixed_time_that_does_not_exist_is_the_first_moment_after_the_gap() {
        // 2026-03-29 in Berlin: 02:00 is 03:00.
        let ticks = ticks("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(ticks, ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]);
    }

    #[test]
    fn a_fixed_time_that_comes_twice_ticks_once() {
        // 2026-10-25 in Berlin: 03:00 is 02:00.
        let ticks = ticks("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(ticks, ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
    }

    #[test]
    fn what_repeats_within_the_hour_ticks_as_often_as_time_passes() {
        let forward = ticks("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3);
        assert_eq!(forward, ["2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"]);
        let back = ticks("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 3);
        assert_eq!(back, ["2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z"]);
    }

    #[test]
    fn the_last_tick_is_one_of_those_that_come_also_where_clocks_change() {
        for cron in
            ["30 2 * * *", "0 3 * * *", "*/30 * * * *", "15 * * * *", "0 1,2,3 * * *", "30 2 L * *", "0 */2 * * *"]
        {
            for (from, days) in [("2026-03-28T12:00:00Z", 2), ("2026-10-24T12:00:00Z", 2)] {
                let timetable = Timetable::parse(cron, "Europe/Berlin", time(from)).expect("a timetable");
                let (from, until) = (time(from), time(from) + days * 86_400_000);
                let ticks: Vec<u64> = std::iter::successors(timetable.next(from), |at| timetable.next(*at))
                    .take_while(|at| *at <= until)
                    .collect();
                for now in (from..until).step_by(450_000) {
                    let expected = ticks.iter().copied().rfind(|at| *at <= now);
                    let last = timetable.last(now).filter(|at| *at > from);
                    assert_eq!(last.map(shown), expected.map(shown), "{cron} at {}", shown(now));
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let parse = |cron: &str, zone: &str| Timetable::parse(cron, zone, 0).expect_err("wrong");
        assert!(matches!(parse("0 25 * * *", "UTC"), TimetableError::Cron { .. }));
        assert!(matches!(parse("often", "UTC"), TimetableError::Cron { .. }));
        assert!(matches!(parse("0 0 1 1 * 2030", "UTC"), TimetableError::Cron { .. }));
        assert_eq!(parse("* * * * *", "Europe/Berlim"), TimetableError::Zone("Europe/Berlim".into()));
        assert_eq!(parse("0 0 30 2 *", "UTC"), TimetableError::Never("0 0 30 2 *".into()));
    }
}
