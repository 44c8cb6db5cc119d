//! When quiet hours end (NO-2). Pure.

use common::{
    notifications::QuietHours,
    time::{self, Millis},
};
use jiff::{SignedDuration, Timestamp, civil::Time, tz::TimeZone};

/// Changes of the clock that are looked at within one day. No zone ever had more than two.
const CHANGES: usize = 4;

/// When it is quiet no more, if it is quiet at `now`: the first moment from there on that is not within the hours. Hours that are the whole
/// day end for a moment each day. A zone that nobody knows counts as UTC.
pub(super) fn until(hours: QuietHours, zone: Option<&str>, now: Millis) -> Option<Millis> {
    let zone = zone.and_then(time::zone).unwrap_or(TimeZone::UTC);
    let mut at = Timestamp::from_millisecond(now.0).ok()?;
    if !within(hours, time(&zone, at)) {
        return None;
    }
    // From one change of the clock to the next it runs evenly.
    for _ in 0..CHANGES {
        let end = at.checked_add(left(hours, time(&zone, at))).ok()?;
        match zone.following(at).next().map(|change| change.timestamp()) {
            Some(change) if change <= end => at = change,
            _ => return Some(Millis(end.as_millisecond())),
        }
        if !within(hours, time(&zone, at)) {
            break;
        }
    }
    Some(Millis(at.as_millisecond()))
}

fn time(zone: &TimeZone, at: Timestamp) -> Time {
    zone.to_datetime(at).time()
}

fn within(hours: QuietHours, time: Time) -> bool {
    let QuietHours { from, to } = hours;
    if from < to { from <= time && time < to } else { time >= from || time < to }
}

/// How long until the hours end, by a clock that runs evenly.
fn left(hours: QuietHours, time: Time) -> SignedDuration {
    let left = time.duration_until(hours.to);
    if left.is_positive() { left } else { left + SignedDuration::from_hours(24) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(from: &str, to: &str) -> QuietHours {
        QuietHours { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn no_2_quiet_hours_are_those_of_the_users_own_time_zone() {
        let night = hours("22:00", "07:00");
        let cases = [
            // Before them, at their first moment, over midnight, at their last moment, and after them.
            (None, "2026-11-21T21:59:59.999Z", None),
            (None, "2026-11-21T22:00:00Z", Some("2026-11-22T07:00:00Z")),
            (None, "2026-11-22T00:00:00Z", Some("2026-11-22T07:00:00Z")),
            (None, "2026-11-22T06:59:59.999Z", Some("2026-11-22T07:00:00Z")),
            (None, "2026-11-22T07:00:00Z", None),
            // Elsewhere it is another time.
            (Some("Asia/Tokyo"), "2026-11-21T12:59:59Z", None),
            (Some("Asia/Tokyo"), "2026-11-21T13:00:00Z", Some("2026-11-21T22:00:00Z")),
            (Some("America/New_York"), "2026-11-21T22:30:00Z", None),
            (Some("America/New_York"), "2026-11-22T03:00:00Z", Some("2026-11-22T12:00:00Z")),
            (Some("Asia/Kathmandu"), "2026-11-21T16:15:00Z", Some("2026-11-22T01:15:00Z")),
            // Nobody knows these.
            (Some("Mars/Olympus"), "2026-11-21T22:00:00Z", Some("2026-11-22T07:00:00Z")),
            (Some(""), "2026-11-21T21:00:00Z", None),
            // The night in which the clock is put forward is short, and the one in which it is put back long.
            (Some("Europe/Berlin"), "2026-03-28T21:00:00Z", Some("2026-03-29T05:00:00Z")),
            (Some("Europe/Berlin"), "2026-10-24T20:00:00Z", Some("2026-10-25T06:00:00Z")),
            // A day that a country left out.
            (Some("Pacific/Apia"), "2011-12-30T09:30:00Z", Some("2011-12-30T17:00:00Z")),
        ];
        for (zone, now, end) in cases {
            assert_eq!(until(night, zone, at(now)), end.map(at), "{zone:?} {now}");
        }
    }

    #[test]
    fn no_2_hours_within_one_day_and_hours_that_are_the_whole_day() {
        let lunch = hours("12:00", "13:30");
        assert_eq!(until(lunch, None, at("2026-11-21T11:59:59Z")), None);
        assert_eq!(until(lunch, None, at("2026-11-21T12:00:00.001Z")), Some(at("2026-11-21T13:30:00Z")));
        assert_eq!(until(lunch, None, at("2026-11-21T13:30:00Z")), None);
        let always = hours("09:00", "09:00");
        assert_eq!(until(always, None, at("2026-11-21T08:00:00Z")), Some(at("2026-11-21T09:00:00Z")));
        assert_eq!(until(always, None, at("2026-11-21T09:00:00Z")), Some(at("2026-11-22T09:00:00Z")));
    }

    #[test]
    fn no_2_an_end_that_the_clock_leaves_out_or_shows_twice() {
        let early = hours("22:00", "02:30");
        // 2:00 is 3:00: they are over then.
        let end = Some(at("2026-03-29T01:00:00Z"));
        assert_eq!(until(early, Some("Europe/Berlin"), at("2026-03-28T23:00:00Z")), end);
        assert_eq!(until(early, Some("Europe/Berlin"), at("2026-03-29T01:00:00Z")), None);
        // 2:30 comes, then 3:00 is 2:00 once more, and 2:30 comes again.
        let berlin = |now| until(early, Some("Europe/Berlin"), at(now));
        assert_eq!(berlin("2026-10-25T00:10:00Z"), Some(at("2026-10-25T00:30:00Z")));
        assert_eq!(berlin("2026-10-25T00:30:00Z"), None);
        assert_eq!(berlin("2026-10-25T01:10:00Z"), Some(at("2026-10-25T01:30:00Z")));
        assert_eq!(berlin("2026-10-25T01:30:00Z"), None);
    }

    fn clock() -> impl Strategy<Value = Time> {
        (0..24i8, prop::sample::select(vec![0i8, 15, 30, 59]))
            .prop_map(|(h, m)| Time::new(h, m, 0, 0).unwrap())
    }

    proptest! {
        #[test]
        fn no_2_it_is_quiet_until_the_end_and_not_at_the_end(
            from in clock(),
            to in clock(),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca",
                "America/Sao_Paulo", "Asia/Tehran", "Pacific/Apia", "Antarctica/Troll",
            ]),
            now in 1_000_000_000_000i64..2_000_000_000_000,
        ) {
            let hours = QuietHours { from, to };
            match until(hours, Some(zone), Millis(now)) {
                None => prop_assert_ne!(from, to),
                Some(end) => {
                    prop_assert!(end.0 > now && end.0 - now <= 27 * 3_600_000);
                    if from != to {
                        prop_assert_eq!(until(hours, Some(zone), end), None);
                    }
                    for part in 0..50 {
                        let between = Millis(now + (end.0 - now) * part / 50);
                        prop_assert_eq!(until(hours, Some(zone), between), Some(end));
                    }
                }
            }
        }
    }
}
