//! A text as search sees it: in lower case, without accents and widths, cut into words; and where each character of it came from.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A folded text.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub(crate) chars: Vec<char>,
    /// The characters of the text that each came from, as begin and end. None: each from the one in its own place.
    origins: Option<Vec<(u32, u32)>>,
    pub(crate) words: Vec<Word>,
}

/// A word of a folded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// Where it begins in the folded characters.
    pub(crate) start: usize,
    /// Where it ends.
    pub(crate) end: usize,
    /// Whether it is of a script in which every character is looked for by itself.
    pub(crate) dense: bool,
}

impl Folded {
    pub(crate) fn of(text: &str) -> Self {
        let mut folded = match text.is_ascii() {
            true => Self {
                chars: text.bytes().map(|byte| char::from(byte.to_ascii_lowercase())).collect(),
                ..Self::default()
            },
            false => Self::of_any(text),
        };
        folded.cut();
        folded
    }

    fn of_any(text: &str) -> Self {
        let mut folder =
            Folder { chars: Vec::with_capacity(text.len()), origins: Vec::with_capacity(text.len()) };
        // A character with the marks that follow it is folded as one: in whatever form it was typed, it becomes the same.
        let mut cluster = String::new();
        let mut start = 0;
        for (at, char) in (0_u32..).zip(text.chars()) {
            if !cluster.is_empty() && !continues(char) {
                folder.take(&cluster, start, at);
                cluster.clear();
            }
            if cluster.is_empty() {
                start = at;
            }
            cluster.push(char);
        }
        let end = start.saturating_add(u32::try_from(cluster.chars().count()).unwrap_or(u32::MAX));
        folder.take(&cluster, start, end);
        Self { chars: folder.chars, origins: Some(folder.origins), words: Vec::new() }
    }

    fn cut(&mut self) {
        let mut word: Option<Word> = None;
        for (at, char) in self.chars.iter().enumerate() {
            match (kind(*char), &mut word) {
                (Some(dense), Some(word)) if word.dense == dense => word.end = at + 1,
                (kind, before) => {
                    self.words.extend(before.take());
                    word = kind.map(|dense| Word { start: at, end: at + 1, dense });
                }
            }
        }
        self.words.extend(word);
    }

    pub(crate) fn word(&self, word: Word) -> &[char] {
        self.chars.get(word.start..word.end).unwrap_or_default()
    }

    /// Where the folded characters from `start` to `end` stand in the text: begin and end, in characters.
    pub(crate) fn origin(&self, start: usize, end: usize) -> (u32, u32) {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        match &self.origins {
            None => (place(start), place(end)),
            Some(origins) => {
                let begin = origins.get(start).map_or(0, |(begin, _)| *begin);
                (begin, origins.get(end.saturating_sub(1)).map_or(begin, |(_, end)| *end))
            }
        }
    }
}

struct Folder {
    chars: Vec<char>,
    origins: Vec<(u32, u32)>,
}

impl Folder {
    fn take(&mut self, cluster: &str, start: u32, end: u32) {
        if let [byte] = cluster.as_bytes() {
            self.push(char::from(byte.to_ascii_lowercase()), start, end);
            return;
        }
        for char in cluster.nfkd().flat_map(char::to_lowercase).filter(|char| !is_dropped(*char)).nfc() {
            match char {
                'ß' => {
                    self.push('s', start, end);
                    self.push('s', start, end);
                }
                'ς' => self.push('σ', start, end),
                'ı' => self.push('i', start, end),
                char => self.push(char, start, end),
            }
        }
    }

    fn push(&mut self, char: char, start: u32, end: u32) {
        self.chars.push(char);
        self.origins.push((start, end));
    }
}

/// Whether a character belongs to the one before it: marks, the later parts of a Korean syllable, the voicing marks of half-width Kana, a
/// hyphen that is not shown.
pub(crate) fn continues(char: char) -> bool {
    !char.is_ascii()
        && (is_combining_mark(char)
            || matches!(char, '\u{1160}'..='\u{11ff}' | '\u{ff9e}' | '\u{ff9f}' | '\u{ad}'))
}

/// Marks that people leave out when they look for a word: accents, vowel points, variants of how something is drawn. Marks that make another
/// letter (of Indian scripts, Thai, Kana) stay.
fn is_dropped(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{300}'..='\u{36f}'
            | '\u{591}'..='\u{5bd}'
            | '\u{5bf}'
            | '\u{5c1}'..='\u{5c7}'
            | '\u{610}'..='\u{61a}'
            | '\u{640}'
            | '\u{64b}'..='\u{65f}'
            | '\u{670}'
            | '\u{6d6}'..='\u{6dc}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

/// Whether a character is of a word, and if so of a dense one: Han, Kana, Hangul, and what is neither letter nor punctuation, such as emoji.
fn kind(char: char) -> Option<bool> {
    if char.is_ascii() {
        return char.is_ascii_alphanumeric().then_some(false);
    }
    let dense = matches!(
        char,
        '\u{3005}'..='\u{3007}'
            | '\u{3041}'..='\u{30fa}'
            | '\u{30fc}'..='\u{30ff}'
            | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    );
    if dense {
        return Some(true);
    }
    if char.is_alphanumeric() || is_combining_mark(char) {
        return Some(false);
    }
    let punctuation =
        matches!(char, '\u{80}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{30fb}');
    (!punctuation && !char.is_whitespace() && !char.is_control()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let folded = Folded::of(text);
        folded.words.iter().map(|word| folded.word(*word).iter().collect()).collect()
    }

    #[test]
    fn case_accents_and_widths_do_not_count() {
        assert_eq!(words("Ana María, Díaz-O'Brien!"), ["ana", "maria", "diaz", "o", "brien"]);
        assert_eq!(
            words("ＡＮＡ İlker Straße Ångström ΟΔΟΣ"),
            ["ana", "ilker", "strasse", "angstrom", "οδοσ"]
        );
        assert_eq!(words("ﬁne ㎏ e\u{301}te\u{301}"), ["fine", "kg", "ete"]);
        assert_eq!(words("שָׁלוֹם مُحَمَّد"), ["שלום", "محمد"]);
        assert_eq!(words(" ?! \u{200b} — "), Vec::<String>::new());
    }

    #[test]
    fn a_letter_is_the_same_in_whatever_form_it_was_typed() {
        assert_eq!(words("ガクセイ"), words("ｶﾞｸｾｲ"));
        assert_eq!(words("か\u{3099}く"), ["がく"]);
        assert_ne!(words("がく"), words("かく"));
        assert_eq!(words("\u{1112}\u{1161}\u{11ab}"), ["한"]);
        assert_ne!(words("किताब"), words("कताब"));
    }

    #[test]
    fn scripts_part_words() {
        assert_eq!(words("iPhone手机v2"), ["iphone", "手机", "v2"]);
        assert_eq!(words("王小明と話す。"), ["王小明と話す"]);
        assert_eq!(words("hi🙂🙂 ❤\u{fe0f}"), ["hi", "🙂🙂", "❤"]);
        assert_eq!(words("コーヒー・ミルク"), ["コーヒー", "ミルク"]);
    }

    #[test]
    fn where_a_word_stood_is_told_in_characters_of_the_text() {
        for (text, nth, expected) in [
            ("an Über-Straße", 2, "Straße"),
            ("e\u{301}te\u{301} ici", 0, "e\u{301}te\u{301}"),
            ("e\u{301}te\u{301} ici", 1, "ici"),
            ("x ｶﾞｸ", 1, "ｶﾞｸ"),
            ("🙂 plain", 1, "plain"),
        ] {
            let folded = Folded::of(text);
            let word = folded.words[nth];
            let (start, end) = folded.origin(word.start, word.end);
            let shown: String = text.chars().skip(start as usize).take((end - start) as usize).collect();
            assert_eq!(shown, expected, "{text}");
        }
    }
}
