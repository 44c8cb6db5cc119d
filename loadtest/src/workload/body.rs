//! The text of a load's messages: when it was due, a number that no other has, and padding.

/// A text of about `bytes` bytes (never below the 30 or so that the head needs). `unique` makes it the only one of its kind.
pub fn compose(scheduled: u64, unique: u64, bytes: usize) -> String {
    let mut body = format!("@{scheduled:x} {unique:x} ");
    let missing = bytes.saturating_sub(body.len());
    body.extend(std::iter::repeat_n('.', missing));
    body
}

/// When the message was due, in microseconds of the run's clock; of a text that [`compose`] did not make: nothing.
pub fn scheduled(body: &str) -> Option<u64> {
    let (scheduled, _) = body.strip_prefix('@')?.split_once(' ')?;
    u64::from_str_radix(scheduled, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_when_it_was_due_and_has_the_length_it_should() {
        let body = compose(1_234_567, 9, 200);
        assert_eq!((scheduled(&body), body.len()), (Some(1_234_567), 200));
        assert_eq!(scheduled(&compose(5, 1, 0)), Some(5));
        for other in ["", "@", "@ x", "hello @5 ", "@zz 1"] {
            assert_eq!(scheduled(other), None);
        }
    }
}
