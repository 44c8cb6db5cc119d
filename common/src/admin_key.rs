//! The operator's keys: what guards applications, and the storage API.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Characters of a key: 16 random ones are 96 bits.
const MIN_CHARS: usize = 16;

/// A key of the operator's, or none: then nobody is let in. Shows itself to nobody.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct AdminKey(Option<Known>);

#[derive(Clone, PartialEq, Eq)]
struct Known {
    digest: [u8; 32],
    chars: usize,
}

impl From<String> for AdminKey {
    /// An empty text is no key.
    fn from(text: String) -> Self {
        let known = || Known { digest: digest(&text), chars: text.chars().count() };
        Self((!text.is_empty()).then(known))
    }
}

impl AdminKey {
    /// Whether `presented` is the key. Digests are compared, all of them: how long it takes says nothing of the key.
    pub fn opens_to(&self, presented: &str) -> bool {
        let Some(known) = &self.0 else { return false };
        let presented = digest(presented);
        let differing = known.digest.iter().zip(presented).fold(0, |all, (one, other)| all | (one ^ other));
        std::hint::black_box(differing) == 0
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it can be guessed.
    pub fn is_short(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.chars < MIN_CHARS)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "AdminKey(set)" } else { "AdminKey(none)" })
    }
}

impl Serialize for AdminKey {
    /// For listings of settings.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_set() { "***" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_to_itself_only_and_shows_itself_to_nobody() {
        let key: AdminKey = "correct horse battery".to_owned().into();
        assert!(key.opens_to("correct horse battery"));
        for other in ["", "correct horse batter", "correct horse battery ", "***"] {
            assert!(!key.opens_to(other), "{other}");
        }
        let shown = format!("{key:?} {}", serde_json::to_string(&key).unwrap());
        assert!(!shown.contains("horse"), "{shown}");
        assert!(!key.is_short() && AdminKey::from("short".to_owned()).is_short());
    }

    #[test]
    fn without_a_key_nobody_is_let_in() {
        let none = AdminKey::default();
        assert_eq!(none, String::new().into());
        assert!(!none.opens_to("") && !none.is_short() && !none.is_set());
    }
}
