//! Time as it stands in frames, records and rows: milliseconds since 1970, UTC.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{
    SignedDuration, Timestamp,
    civil::{DateTime, datetime},
    fmt::temporal::Pieces,
    tz::{TimeZone, TimeZoneDatabase},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);

/// The last moment that RFC 3339 has a text for: 9999-12-31T23:59:59.999Z.
const LAST: Millis = Millis(253_402_300_799_999);

/// A moment: milliseconds since 1970-01-01T00:00:00Z. In JSON an RFC 3339 text in UTC with milliseconds
/// (`2026-11-21T09:05:54.123Z`), in binary frames the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The machine's clock. Whoever decides something by time takes it as an argument; this is for whoever hands it in.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The moment `span` later, or the last one there is.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `span` earlier, or the first one there is.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since 1970, as tokens count.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The moment with this many whole seconds since 1970.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            // It knows no last day of the year 9999.
            Err(_) => match EPOCH.checked_add(SignedDuration::from_millis(self.0)) {
                Ok(at) => write!(f, "{at:.3}Z"),
                Err(_) => write!(f, "{}ms", self.0),
            },
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
            parse(&text).ok_or_else(|| {
                de::Error::custom(format_args!(
                    "must be a moment such as 2026-11-21T09:05:54.123Z, at most {LAST}"
                ))
            })
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

/// The moment that a text means.
fn parse(text: &str) -> Option<Millis> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(Millis(at.as_millisecond()));
    }
    // A `Timestamp` ends a day before the year 9999 does.
    let pieces = Pieces::parse(text).ok()?;
    let local = DateTime::from_parts(pieces.date(), pieces.time()?);
    let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let since = local.duration_since(EPOCH).checked_sub(offset)?;
    let at = Millis(i64::try_from(since.as_millis()).ok()?);
    (Millis(0)..=LAST).contains(&at).then_some(at)
}

impl JsonSchema for Millis {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A moment in UTC with milliseconds (RFC 3339): `2026-11-21T09:15:54.120Z`.",
        })
    }
}

/// The time zone with this name in IANA's database, in any case. That database is the one in this program, so that all services agree,
/// whatever their machines have.
pub fn zone(name: &str) -> Option<TimeZone> {
    // "Etc/Unknown" says of itself that it is none.
    TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds() {
        let at = Millis(1_795_252_554_120);
        assert_eq!(at.to_string(), "2026-11-21T09:15:54.120Z");
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Millis>(&json).unwrap(), at);
        assert_eq!(rmp_serde::from_slice::<Millis>(&rmp_serde::to_vec(&at).unwrap()).unwrap(), at);
    }

    #[test]
    fn no_2_moments_are_taken_up_to_the_end_of_the_year_9999() {
        let read = |text: &str| serde_json::from_value::<Millis>(text.into());
        for (text, shown) in [
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59+14:00", "9999-12-31T09:59:59.000Z"),
            ("9999-12-30T22:00:01Z", "9999-12-30T22:00:01.000Z"),
            ("9999-12-31T12:00:00-11:59", "9999-12-31T23:59:00.000Z"),
            ("2026-11-21T10:15:54.120+01:00", "2026-11-21T09:15:54.120Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ] {
            let at = read(text).unwrap();
            assert_eq!(at.to_string(), shown, "{text}");
            assert_eq!(read(shown).unwrap(), at, "{text}");
        }
        assert_eq!(read("9999-12-31T23:59:59.999Z").unwrap(), LAST);
        for bad in [
            "",
            "tomorrow",
            "9999-12-31T23:59:59",
            "9999-12-31T23:59:59-00:01",
            "10000-01-01T00:00:00Z",
            "9999-12-31",
            "9999-12-32T00:00:00Z",
            "2026-11-21",
        ] {
            let error = read(bad).unwrap_err().to_string();
            let told = "must be a moment such as 2026-11-21T09:05:54.123Z, at most 9999-12-31T23:59:59.999Z";
            assert_eq!(error, told, "{bad}");
        }
        assert_eq!(Millis(i64::MAX).to_string(), format!("{}ms", i64::MAX));
    }

    #[test]
    fn time_zones_are_those_of_iana() {
        for good in [
            "UTC",
            "Europe/Madrid",
            "europe/madrid",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+5",
            "America/Port-au-Prince",
            "US/Pacific",
            "Asia/Calcutta",
        ] {
            assert!(zone(good).is_some(), "{good}");
        }
        let long = "x".repeat(100_000);
        for bad in [
            "",
            "/",
            "Europe/",
            "Europe/Madird",
            "../etc",
            "/etc/localtime",
            "+02:00",
            "CET-1CEST",
            "Etc/Unknown",
            "Europe/Madrid\0",
            " UTC",
            &long,
        ] {
            assert!(zone(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_never_overflows() {
        assert_eq!(Millis(i64::MAX).plus(Duration::MAX), Millis(i64::MAX));
        assert_eq!(Millis(0).since(Millis(5)), Duration::ZERO);
    }
}
