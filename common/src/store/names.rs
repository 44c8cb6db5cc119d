//! Words of names, by which people are found: the same in every engine, for the engines only compare them.
//!
//! A word is what stands between spaces and punctuation, in lower case and without accents. In scripts that put no spaces between words
//! every character begins one.

use std::collections::BTreeSet;

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Words of a name that are kept: a long name in a script without spaces has one for each character.
const WORDS: usize = 32;

/// Characters of a word that are kept.
const WORD_CHARS: usize = 32;

/// Users whose names are read at once when the words of all are written down.
pub(super) const TOGETHER: i64 = 1_000;

/// Words of a query that are looked for.
const SOUGHT: usize = 8;

/// Comes behind every character that a word goes on with: what begins with a word lies between it and it with this behind.
pub(super) const BEHIND: &str = "\u{10FFFF}";

/// Names that are looked through for one query: those whose words come first after the longest of the query. Past it some are not found.
pub(super) const LOOKED_THROUGH: i64 = 10_000;

/// People that one query finds at most, on all its pages.
pub(super) const FOUND: i64 = 1_000;

/// The words under which a name is found.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = BTreeSet::new();
    let folded = fold(name);
    for run in runs(&folded) {
        let begins = |(at, char): &(usize, char)| *at == 0 || begins_anywhere(*char);
        for (at, _) in run.char_indices().filter(begins) {
            if words.len() == WORDS {
                break;
            }
            words.insert(
                run.chars()
                    .skip(run.get(..at).map_or(0, |before| before.chars().count()))
                    .take(WORD_CHARS)
                    .collect(),
            );
        }
    }
    words.into_iter().collect()
}

/// The beginnings of words that a query looks for, the longest first: the longer, the fewer have it.
pub(super) fn sought(query: &str) -> Vec<String> {
    let folded = fold(query);
    let words: BTreeSet<String> =
        runs(&folded).take(SOUGHT).map(|run| run.chars().take(WORD_CHARS).collect()).collect();
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
    words
}

/// A text without case and accents: what people are found by, and the order in which they are listed.
pub(super) fn fold(text: &str) -> String {
    text.to_lowercase().nfkd().filter(|char| !is_combining_mark(*char)).nfc().collect()
}

fn runs(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|char| !of_a_word(char)).filter(|run| !run.is_empty())
}

/// Letters and digits, and whatever else is no punctuation: a name may be a picture.
fn of_a_word(char: char) -> bool {
    let punctuation = matches!(char, '\0'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{30fb}' | '\u{10ffff}');
    char.is_alphanumeric() || !(punctuation || char.is_whitespace() || char.is_control())
}

/// Whether the character belongs to a script without spaces between words: Thai and Lao, Kana, Han, Hangul.
fn begins_anywhere(char: char) -> bool {
    matches!(
        char,
        '\u{e00}'..='\u{eff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_words_without_case_accents_and_punctuation() {
        assert_eq!(words("Ana María Díaz-O'Brien (🙂)"), ["ana", "brien", "diaz", "maria", "o", "🙂"]);
        assert_eq!(words("ＡＮＡ İlker Ångström"), ["ana", "angstrom", "ilker"]);
        assert_eq!(words("ana Ana ANA"), ["ana"]);
        assert_eq!(words(" ?! \u{200b} "), Vec::<String>::new());
    }

    #[test]
    fn in_scripts_without_spaces_every_character_begins_a_word() {
        assert_eq!(words("王小明"), ["小明", "明", "王小明"]);
        assert_eq!(sought("小明"), ["小明"]);
        assert_eq!(words("김철수"), ["김철수", "수", "철수"]);
    }

    #[test]
    fn the_longest_word_is_looked_for_first() {
        assert_eq!(sought("dí  ANA d"), ["ana", "di", "d"]);
        assert_eq!(sought(" - "), Vec::<String>::new());
    }

    #[test]
    fn the_longest_name_has_a_bounded_number_of_words() {
        assert_eq!(words(&"王小明".repeat(60)).len(), 32);
        assert!(words(&"x".repeat(200)).iter().all(|word| word.len() == 32));
        assert_eq!(sought(&"a b c d e f g h i j k l".repeat(9)).len(), 8);
    }
}
