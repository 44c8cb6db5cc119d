//! What a field may hold, beyond its type: lengths, ranges, and what the store can keep. The same for both doors.
//!
//! Every wrong field of a request is named (up to a bound), not only the first. Absent on purpose: who may do what. That is for the
//! chat's owner to say.

use common::{
    model::{limits, storable},
    problem::Problem,
    wire::{client::FieldError, codes::ErrorCode},
};

/// Wrong fields that one answer names: a list of 50,000 wrong members does not become a longer answer.
const ERRORS_NAMED: usize = 20;

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    errors: Vec<FieldError>,
    too_large: Option<String>,
}

impl Checks {
    /// A field of the body is wrong.
    pub(crate) fn wrong(&mut self, param: impl Into<String>, msg: impl Into<String>) {
        if self.errors.len() < ERRORS_NAMED {
            self.errors.push(FieldError::body(param, msg));
        }
    }

    /// A text of `min` to `max` characters.
    pub(crate) fn text(&mut self, param: &str, text: &str, min: usize, max: usize) {
        // A character has at most 4 bytes, so a text too long by its bytes is not counted.
        let good = text.len() <= max.saturating_mul(4) && (min..=max).contains(&text.chars().count());
        if !good {
            self.wrong(param, format!("must have {min} to {max} characters"));
        }
        self.storable(param, text);
    }

    /// A text that the store can hold.
    pub(crate) fn storable(&mut self, param: &str, text: &str) {
        if !storable(text) {
            self.wrong(param, "must not contain U+0000");
        }
    }

    /// A message's text. It may be empty beside attachments only.
    pub(crate) fn body(&mut self, body: &str, may_be_empty: bool) {
        if body.is_empty() && !may_be_empty {
            self.wrong("body", "must not be empty");
        }
        if body.len() > limits::BODY_BYTES {
            self.too_large = Some(format!("body: must have at most {} bytes", limits::BODY_BYTES));
        }
        self.storable("body", body);
    }

    /// A message's attachments.
    pub(crate) fn attachments(&mut self, attachments: &[String]) {
        if attachments.len() > limits::ATTACHMENTS {
            self.wrong("attachments", format!("must be at most {}", limits::ATTACHMENTS));
            return;
        }
        for (at, attachment) in attachments.iter().enumerate() {
            self.text(&format!("attachments[{at}]"), attachment, 1, limits::ATTACHMENT_CHARS);
        }
    }

    /// What a message is answered with. Any short text will do that has no space in it and is shown: which emoji there are changes every year.
    pub(crate) fn emoji(&mut self, emoji: &str) {
        let shown = |c: char| !c.is_whitespace() && !c.is_control();
        if emoji.is_empty() || emoji.len() > limits::EMOJI_BYTES || !emoji.chars().all(shown) {
            let most = limits::EMOJI_BYTES;
            self.wrong("emoji", format!("must have 1 to {most} bytes, without space and control characters"));
        }
    }

    /// A chat's name, when there is one.
    pub(crate) fn name(&mut self, name: Option<&str>) {
        if let Some(name) = name {
            self.text("name", name, 1, limits::NAME_CHARS);
        }
    }

    /// A chat's description, when there is one. An empty one takes the present one away.
    pub(crate) fn description(&mut self, description: Option<&str>) {
        if let Some(description) = description {
            self.text("description", description, 0, limits::DESCRIPTION_CHARS);
        }
    }

    /// Whether all was well.
    ///
    /// # Errors
    /// `invalid` with every wrong field; `too_large` when nothing is wrong but a length.
    pub(crate) fn done(self) -> Result<(), Problem> {
        match (self.errors.first(), self.too_large) {
            (Some(first), _) => {
                Err(Problem { errors: self.errors.clone(), ..Problem::invalid(first.clone()) })
            }
            (None, Some(detail)) => Err(Problem::new(ErrorCode::TooLarge, detail)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: impl FnOnce(&mut Checks)) -> Option<(ErrorCode, Vec<String>)> {
        let mut checks = Checks::default();
        check(&mut checks);
        let problem = checks.done().err()?;
        Some((problem.code, problem.errors.into_iter().map(|error| error.param).collect()))
    }

    #[test]
    fn lengths_are_counted_in_characters_and_the_ends_are_in() {
        assert_eq!(found(|checks| checks.text("name", &"é".repeat(200), 1, 200)), None);
        assert_eq!(found(|checks| checks.text("name", "x", 1, 200)), None);
        for bad in [String::new(), "é".repeat(201), "x".repeat(100_000)] {
            assert_eq!(
                found(|checks| checks.text("name", &bad, 1, 200)),
                Some((ErrorCode::Invalid, vec!["name".into()]))
            );
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let found = found(|checks| {
            checks.name(Some(""));
            checks.description(Some("a\0b"));
            checks.attachments(&["ok".into(), String::new()]);
        });
        assert_eq!(
            found,
            Some((ErrorCode::Invalid, vec!["name".into(), "description".into(), "attachments[1]".into()]))
        );
    }

    #[test]
    fn a_body_is_bounded_in_bytes() {
        assert_eq!(found(|checks| checks.body(&"x".repeat(limits::BODY_BYTES), false)), None);
        let long = "é".repeat(limits::BODY_BYTES / 2 + 1);
        assert_eq!(found(|checks| checks.body(&long, false)), Some((ErrorCode::TooLarge, vec![])));
        assert_eq!(found(|checks| checks.body("", false)), Some((ErrorCode::Invalid, vec!["body".into()])));
        assert_eq!(found(|checks| checks.body("", true)), None);
    }
}
