//! A text as policies see it: what looks alike, or is the same in another form, is the same. Accents count: with another one it is another word.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::search::fold::continues;

/// A folded text, and where in the text each of its characters comes from.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) chars: Vec<char>,
    origins: Vec<Range<usize>>,
}

impl Seen {
    pub(super) fn of(text: &[char]) -> Self {
        let mut seen =
            Self { chars: Vec::with_capacity(text.len()), origins: Vec::with_capacity(text.len()) };
        // A character with the marks that follow it is folded as one: in whatever form it was typed, it becomes the same.
        let (mut cluster, mut start, mut end) = (String::new(), 0, 0);
        for (at, char) in text.iter().copied().enumerate().filter(|(_, char)| !is_invisible(*char)) {
            if !cluster.is_empty() && !continues(char) {
                seen.take(&cluster, start..end);
                cluster.clear();
            }
            if cluster.is_empty() {
                start = at;
            }
            cluster.push(char);
            end = at + 1;
        }
        seen.take(&cluster, start..end);
        seen.dot();
        seen
    }

    fn take(&mut self, cluster: &str, origin: Range<usize>) {
        if let [byte] = cluster.as_bytes() {
            self.push(char::from(byte.to_ascii_lowercase()), origin);
            return;
        }
        // Unicode, 3.13: compatibility decomposition and case folding, and composed again.
        for char in cluster.nfkd().flat_map(char::to_lowercase).nfc() {
            match char {
                'ß' => {
                    self.push('s', origin.clone());
                    self.push('s', origin.clone());
                }
                'ς' => self.push('σ', origin.clone()),
                char if is_overlaid(char) => {}
                char => self.push(char, origin.clone()),
            }
        }
    }

    fn push(&mut self, char: char, origin: Range<usize>) {
        self.chars.push(char);
        self.origins.push(origin);
    }

    /// The full stop of Chinese and Japanese within a Latin word is a dot, as it is in the names of hosts (UTS 46, section 2.3).
    fn dot(&mut self) {
        for at in 1..self.chars.len().saturating_sub(1) {
            if let Some([before, stop @ '。', after]) = self.chars.get_mut(at - 1..at + 2)
                && before.is_ascii_alphanumeric()
                && after.is_ascii_alphanumeric()
            {
                *stop = '.';
            }
        }
    }

    /// Where some of its characters stand in the text.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let start = self.origins.get(range.start).map_or(0, |origin| origin.start);
        let last = self.origins.get(range.end.saturating_sub(1));
        start..last.map_or(start, |origin| origin.end)
    }
}

/// Whether a character is of a word.
pub(super) fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || !char.is_ascii() && is_combining_mark(char)
}

/// Zero-width characters, the soft hyphen, and what says how the character before is drawn.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// Strokes and the like through and around a letter, which make no other letter of it: those that do are composed with it by then.
fn is_overlaid(char: char) -> bool {
    matches!(
        char,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}
