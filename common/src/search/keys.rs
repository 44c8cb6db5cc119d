//! The keys under which a message is found, and those that a word of a query is looked for with: 32-bit hashes of small parts of words.
//!
//! | of | keys |
//! | --- | --- |
//! | each word | its first letter, its first two, and every three in a row |
//! | each word of 4 to 24 letters that is no number | the word, and the word without each of its letters: two words that are one edit apart share one of these |
//! | scripts without spaces | each character, and every two in a row |
//!
//! Keys are stored: what is hashed here, and how, stays the same for ever.

use super::fold::Folded;

/// Keys of one message at most: a body of 16 KiB of ordinary text has some 3,000. What is beyond is not found.
const KEYS: usize = 4_096;

/// Keys of one word of a query that must all be there: more would choose no better.
const ALL: usize = 6;

/// Letters of a word that may have a typo: fewer have too many words beside them, and nobody types more by hand.
pub(crate) const TYPO_LETTERS: std::ops::RangeInclusive<usize> = 4..=24;

#[derive(Clone, Copy)]
enum Part {
    First = 1,
    FirstTwo = 2,
    Three = 3,
    Character = 4,
    Two = 5,
    Near = 6,
}

/// FNV-1 over characters instead of bytes, then MurmurHash3's finalizer; of it the upper half.
fn key<'a>(part: Part, chars: impl IntoIterator<Item = &'a char>) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ part as u64;
    for char in chars {
        hash = (hash.wrapping_mul(0x0000_0100_0000_01b3)) ^ u64::from(u32::from(*char));
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 32) as u32
}

/// Whether a word may be found with a typo in it.
pub(crate) fn may_have_typo(word: &[char]) -> bool {
    TYPO_LETTERS.contains(&word.len()) && word.iter().any(|char| !char.is_numeric())
}

/// The word, and the word without each of its letters.
fn near(word: &[char]) -> impl Iterator<Item = u32> + '_ {
    let without = move |at: usize| {
        let (before, after) = (word.iter().take(at), word.iter().skip(at + 1));
        key(Part::Near, before.chain(after))
    };
    std::iter::once(key(Part::Near, word)).chain((0..word.len()).map(without))
}

/// The keys of a message, each once, in order.
pub(crate) fn keys(text: &Folded) -> Vec<u32> {
    let mut keys = Vec::with_capacity(text.chars.len().saturating_mul(2));
    for word in &text.words {
        let chars = text.word(*word);
        if word.dense {
            keys.extend(chars.iter().map(|char| key(Part::Character, [char])));
            keys.extend(chars.windows(2).map(|two| key(Part::Two, two)));
        } else {
            keys.push(key(Part::First, chars.first()));
            keys.extend(chars.get(..2).map(|two| key(Part::FirstTwo, two)));
            keys.extend(chars.windows(3).map(|three| key(Part::Three, three)));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    // Typos come last: where there are too many keys, at least what was typed as it stands is found.
    let exact = keys.len();
    for word in text.words.iter().filter(|word| !word.dense) {
        if keys.len() >= KEYS.saturating_mul(2) {
            break;
        }
        let chars = text.word(*word);
        if may_have_typo(chars) {
            keys.extend(near(chars));
        }
    }
    if let Some(near) = keys.get_mut(exact..) {
        near.sort_unstable();
    }
    keys.truncate(KEYS.max(1));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// How messages that have a word are looked for: those with all of the first keys, and those with any of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sought {
    /// Of messages that have it as it is.
    pub(crate) all: Vec<u32>,
    /// Of messages that may have it with a typo.
    pub(crate) any: Vec<u32>,
}

/// The keys for a word of a query.
pub(crate) fn sought(word: &[char], dense: bool) -> Sought {
    let all = match (dense, word.len()) {
        (true, 1) => vec![key(Part::Character, word)],
        (true, _) => spread(word.windows(2).map(|two| key(Part::Two, two)).collect()),
        (false, 1) => vec![key(Part::First, word)],
        (false, 2) => vec![key(Part::FirstTwo, word)],
        (false, _) => spread(word.windows(3).map(|three| key(Part::Three, three)).collect()),
    };
    let mut any = Vec::new();
    if !dense && may_have_typo(word) {
        any.extend(near(word));
        any.sort_unstable();
        any.dedup();
    }
    Sought { all, any }
}

/// Of many keys some, from the whole length of the word.
fn spread(keys: Vec<u32>) -> Vec<u32> {
    let count = keys.len();
    let mut some: Vec<u32> = match count <= ALL {
        true => keys,
        false => (0..ALL).filter_map(|nth| keys.get(nth * (count - 1) / (ALL - 1)).copied()).collect(),
    };
    some.sort_unstable();
    some.dedup();
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<u32> {
        keys(&Folded::of(text))
    }

    #[test]
    fn keys_are_the_same_for_ever() {
        assert_eq!(key(Part::Three, &['a', 'b', 'c']), key(Part::Three, &['a', 'b', 'c']));
        let all = [of("ab"), of("abcde"), of("小明")];
        assert_eq!(all.each_ref().map(Vec::len), [2, 2 + 3 + 6, 3]);
        let sum = all.iter().flatten().fold(0_u32, |sum, key| sum.wrapping_add(*key));
        assert_eq!(sum, EVER);
    }

    /// What the keys above sum up to: another sum means that what is stored is found no more.
    const EVER: u32 = 1_972_407_574;

    #[test]
    fn a_long_message_has_a_bounded_number_of_keys_and_words_before_typos() {
        let many: String = (0..1_500).map(|n| format!("w{n}x{} ", n * 7_919)).collect();
        let keys = of(&many);
        assert!(keys.len() <= KEYS && keys.len() > KEYS / 2, "{}", keys.len());
        assert_eq!(of(&"x".repeat(16 * 1024)).len(), 3);
        assert!(of("").is_empty());
    }

    #[test]
    fn numbers_have_no_typos_and_long_words_a_few_keys() {
        let numbers = sought(&"20261129".chars().collect::<Vec<_>>(), false);
        assert!(numbers.any.is_empty() && numbers.all.len() == 6);
        let long: Vec<char> = ('a'..='z').chain('a'..='z').collect();
        let long = sought(&long, false);
        assert!(long.any.is_empty() && long.all.len() <= ALL);
    }
}
