//! A query, and how well a text matches it.

use std::collections::HashSet;

use super::{
    fold::{Folded, Word},
    keys::{Sought, may_have_typo, sought},
};

/// Words of a query that are looked for; what comes behind them is not.
const WORDS: usize = 16;

/// Words of a query that the index is asked for, the longest: what else there is, is seen in the messages.
const INDEXED: usize = 3;

/// Places that are highlighted in one text.
const PLACES: usize = 32;

/// What somebody looks for. Made of any text; one without a word matches nothing.
#[derive(Clone, Debug)]
pub struct Query {
    words: Vec<Asked>,
    /// All of it, to see whether it stands in a text as it is.
    whole: Vec<char>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    chars: Vec<char>,
    dense: bool,
}

/// How well a text matches: of two, the larger is the better match.
///
/// One in which every word stands as it was asked for is better than any with a typo. Then it counts how: as a whole word, as the beginning
/// of one, or inside; and whether the words stand as they do in the query, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Whether it has no typo.
    pub exact: bool,
    /// How its words match.
    pub score: u32,
}

/// How a word is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Quality {
    Typo = 1,
    Inside = 2,
    Beginning = 3,
    Whole = 4,
}

impl Query {
    /// What this text asks for.
    pub fn read(text: &str) -> Self {
        let folded = Folded::of(text);
        let mut seen = HashSet::new();
        let words =
            folded.words.iter().map(|word| Asked { chars: folded.word(*word).to_vec(), dense: word.dense });
        let words: Vec<Asked> = words.filter(|word| seen.insert(word.clone())).take(WORDS).collect();
        let whole = match (folded.words.first(), folded.words.last()) {
            (Some(first), Some(last)) => folded.chars.get(first.start..last.end).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        Self { words, whole }
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How well a text matches; none when it does not.
    pub fn rank(&self, text: &str) -> Option<Match> {
        if self.words.is_empty() {
            return None;
        }
        let text = Folded::of(text);
        let (mut exact, mut score) = (true, 0);
        for word in &self.words {
            let quality = word.in_text(&text)?;
            exact &= quality > Quality::Typo;
            score += quality as u32;
        }
        if self.words.len() > 1 && text.chars.windows(self.whole.len()).any(|some| some == self.whole) {
            score += 2;
        }
        Some(Match { exact, score })
    }

    /// Where a text matches: begin and length of each place, in characters (Unicode code points) of it, in order, without overlaps; at most 32.
    pub fn highlight(&self, text: &str) -> Vec<[u32; 2]> {
        let text = Folded::of(text);
        let mut places: Vec<(usize, usize)> = Vec::new();
        for word in &self.words {
            let before = places.len();
            for candidate in &text.words {
                if places.len() >= before + PLACES {
                    break;
                }
                places.extend(word.places(&text, *candidate));
            }
            if places.len() == before {
                let near = |candidate: &&Word| word.is_near(&text, **candidate);
                places.extend(text.words.iter().filter(near).take(PLACES).map(|word| (word.start, word.end)));
            }
        }
        let mut shown: Vec<(u32, u32)> =
            places.into_iter().map(|(start, end)| text.origin(start, end)).collect();
        shown.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(shown.len());
        for (start, end) in shown {
            match merged.last_mut() {
                Some((_, last)) if start <= *last => *last = end.max(*last),
                _ => merged.push((start, end)),
            }
        }
        merged.into_iter().take(PLACES).map(|(start, end)| [start, end.saturating_sub(start)]).collect()
    }

    /// How the index is asked, for the words that choose best.
    pub(crate) fn sought(&self) -> Vec<Sought> {
        let mut words: Vec<&Asked> = self.words.iter().collect();
        // A character of a dense script says about as much as two letters.
        words.sort_by_key(|word| std::cmp::Reverse(word.chars.len() * if word.dense { 2 } else { 1 }));
        words.into_iter().take(INDEXED).map(|word| sought(&word.chars, word.dense)).collect()
    }
}

impl Asked {
    /// The best match in a text.
    fn in_text(&self, text: &Folded) -> Option<Quality> {
        let mut best = None;
        for word in &text.words {
            best = best.max(self.in_word(text, *word));
            if best == Some(Quality::Whole) {
                break;
            }
        }
        best
    }

    fn in_word(&self, text: &Folded, word: Word) -> Option<Quality> {
        let chars = text.word(word);
        if word.dense != self.dense {
            return None;
        }
        if chars == self.chars {
            return Some(Quality::Whole);
        }
        if chars.starts_with(&self.chars) {
            return Some(Quality::Beginning);
        }
        if self.anywhere() && chars.windows(self.chars.len()).any(|some| some == self.chars) {
            return Some(Quality::Inside);
        }
        self.is_near(text, word).then_some(Quality::Typo)
    }

    /// Whether it is found inside of words: two letters are inside of too many.
    fn anywhere(&self) -> bool {
        self.dense || self.chars.len() >= 3
    }

    /// Whether a word is this one but for a typo.
    fn is_near(&self, text: &Folded, word: Word) -> bool {
        let chars = text.word(word);
        !self.dense
            && !word.dense
            && may_have_typo(&self.chars)
            && may_have_typo(chars)
            && self.chars.len().max(chars.len()) >= 5
            && one_edit(&self.chars, chars)
    }

    /// Where it stands in a word as it is.
    fn places(&self, text: &Folded, word: Word) -> Vec<(usize, usize)> {
        let chars = text.word(word);
        let length = self.chars.len();
        if word.dense != self.dense || length > chars.len() {
            return Vec::new();
        }
        let last = if self.anywhere() { chars.len() - length } else { 0 };
        let mut places = Vec::new();
        let mut at = 0;
        while at <= last && places.len() < PLACES {
            if chars.get(at..).is_some_and(|rest| rest.starts_with(&self.chars)) {
                places.push((word.start + at, word.start + at + length));
                at += length;
            } else {
                at += 1;
            }
        }
        places
    }
}

/// Whether two words are the same but for one letter that is another, is missing or is too many, or two neighbours that changed places.
fn one_edit(one: &[char], other: &[char]) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    if long.len() - short.len() > 1 {
        return false;
    }
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    let (short, long) = (short.get(same..).unwrap_or_default(), long.get(same..).unwrap_or_default());
    match (short, long) {
        ([], _) => true,
        ([a, b, short_rest @ ..], [c, d, long_rest @ ..]) if a == d && b == c && short_rest == long_rest => {
            true
        }
        ([_, short_rest @ ..], [_, long_rest @ ..]) if short.len() == long.len() => short_rest == long_rest,
        ([..], [_, long_rest @ ..]) => short == long_rest,
        ([..], []) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::keys::keys, *};

    fn rank(query: &str, text: &str) -> Option<Match> {
        Query::read(query).rank(text)
    }

    fn shown(query: &str, text: &str) -> Vec<String> {
        let places = Query::read(query).highlight(text);
        let cut =
            |[start, length]: [u32; 2]| text.chars().skip(start as usize).take(length as usize).collect();
        places.into_iter().map(cut).collect()
    }

    #[test]
    fn me_6_parts_of_words_are_found_and_beginnings_of_one_and_two_letters() {
        for (query, text) in [
            ("arri", "the arrival"),
            ("riv", "the arrival"),
            ("val", "the arrival"),
            ("ar", "the arrival"),
            ("a", "the arrival"),
            ("ARRIVAL the", "The Arrival."),
            ("diaz", "Ana Díaz"),
            ("東京", "明日は東京タワーへ"),
            ("明", "明日"),
            ("天气", "北京天气很好"),
            ("🙂", "well🙂🙂"),
            ("국어", "한국어를"),
        ] {
            assert!(rank(query, text).is_some_and(|found| found.exact), "{query} in {text}");
        }
        for (query, text) in [
            ("ri", "arrival"),
            ("arrival x", "arrival"),
            ("京東", "東京"),
            ("", "x"),
            ("?!", "?!"),
            ("x", ""),
        ] {
            assert_eq!(rank(query, text), None, "{query} in {text}");
        }
    }

    #[test]
    fn me_6_one_typo_is_forgiven_in_words_of_five_letters() {
        for query in ["meetng", "meetinng", "meetign", "neeting", "mreting", "meting"] {
            let found = rank(query, "a meeting at noon").unwrap();
            assert!(!found.exact, "{query}");
        }
        for (query, text) in [
            ("metng", "meeting"),
            ("meteign", "meeting"),
            ("that", "than"),
            ("20261128", "20261129"),
            ("東京塔の下", "東京塔の上"),
        ] {
            assert_eq!(rank(query, text), None, "{query} in {text}");
        }
        assert!(rank("helo", "hello").is_some() && rank("hello", "helo").is_some());
    }

    #[test]
    fn me_6_better_matches_come_first() {
        let texts = ["the plans", "the plan", "the airplane", "no plan for the", "the plank", "the plna"];
        let mut found: Vec<_> =
            texts.into_iter().filter_map(|text| Some((rank("the plan", text)?, text))).collect();
        found.sort_by_key(|(found, _)| std::cmp::Reverse(*found));
        let order: Vec<_> = found.into_iter().map(|(_, text)| text).collect();
        assert_eq!(order, ["the plan", "the plans", "the plank", "no plan for the", "the airplane"]);
        assert!(rank("meeting", "meetings") > rank("meeting", "meetinf"));
    }

    #[test]
    fn me_6_what_matches_is_shown_where_it_stands() {
        assert_eq!(shown("über", "Über und über, ubertas"), ["Über", "über", "uber"]);
        assert_eq!(shown("meetign", "Meeting, meetings"), ["Meeting"]);
        assert_eq!(shown("meeting", "Meeting, meetinf"), ["Meeting"]);
        assert_eq!(shown("京タ ワー", "東京タワー"), ["京タワー"]);
        assert_eq!(shown("ガク", "ｶﾞｸｾｲ"), ["ｶﾞｸ"]);
        assert_eq!(shown("strasse", "die Straße 🙂"), ["Straße"]);
        assert_eq!(shown("aba", "ababa"), ["aba"]);
        assert_eq!(Query::read("a").highlight(&"a ".repeat(500)).len(), 32);
    }

    /// Whether the index would find a text.
    fn indexed(query: &Query, text: &str) -> bool {
        let keys = keys(&Folded::of(text));
        let has = |key: &u32| keys.binary_search(key).is_ok();
        query.sought().iter().all(|sought| sought.all.iter().all(has) || sought.any.iter().any(has))
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-e]{1,9}",
            "[a-zàâçéèëïôöü]{5,20}",
            "[東京大阪天気一-三]{1,5}",
            "[0-9]{1,6}",
            "[🙂🎉ก-ฮ]{1,4}"
        ]
    }

    fn text() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(word(), 1..12)
    }

    proptest! {
        #[test]
        fn me_6_whatever_matches_is_found_by_its_keys(text in text(), query in text(), some in any::<bool>()) {
            let text = text.join(" ");
            let query = if some { query.join(" ") } else { query.first().cloned().unwrap_or_default() };
            let query = Query::read(&query);
            if query.rank(&text).is_some() {
                prop_assert!(indexed(&query, &text));
            }
        }

        #[test]
        fn me_6_a_word_within_one_edit_is_found(
            text in text(), word in "[a-zàâçéèëïôöü]{5,20}", at in 0_usize..40, letter in "[a-z]", edit in 0..4
        ) {
            let mut typed: Vec<char> = word.chars().collect();
            let at = at % typed.len();
            let letter = letter.chars().next().unwrap();
            match edit {
                0 => typed[at] = letter,
                1 => drop(typed.remove(at)),
                2 => typed.insert(at, letter),
                _ => typed.swap(at, (at + 1).min(word.chars().count() - 1)),
            }
            let typed: String = typed.into_iter().collect();
            let text = format!("{} {word}", text.join(" "));
            let query = Query::read(&typed);
            prop_assert!(query.rank(&text).is_some(), "{typed} in {text}");
            prop_assert!(indexed(&query, &text), "{typed} in {text}");
            prop_assert!(!query.highlight(&text).is_empty());
        }

        #[test]
        fn me_6_any_three_letters_of_a_word_are_found(text in text(), word in "[a-zàâçéèëïôöü]{3,30}", from in 0_usize..30, length in 3_usize..30) {
            let chars: Vec<char> = word.chars().collect();
            let from = from % (chars.len() - 2);
            let typed: String = chars[from..].iter().take(length).collect();
            let text = format!("{} {word}", text.join(" "));
            let query = Query::read(&typed);
            prop_assert!(query.rank(&text).is_some_and(|found| found.exact), "{typed} in {text}");
            prop_assert!(indexed(&query, &text), "{typed} in {text}");
        }

        #[test]
        fn me_6_any_two_characters_of_a_dense_script_are_found(text in text(), run in "[一-龥ぁ-ゖァ-ヺ]{2,20}", from in 0_usize..20) {
            let chars: Vec<char> = run.chars().collect();
            let from = from % (chars.len() - 1);
            let typed: String = chars[from..from + 2].iter().collect();
            let text = format!("{} {run}。", text.join(" "));
            let query = Query::read(&typed);
            prop_assert!(query.rank(&text).is_some_and(|found| found.exact), "{typed} in {text}");
            prop_assert!(indexed(&query, &text), "{typed} in {text}");
        }

        #[test]
        fn any_text_is_folded_and_highlighted_within_its_bounds(text in "\\PC{0,60}", query in "\\PC{0,10}") {
            let count = text.chars().count() as u32;
            let mut last = 0;
            for [start, length] in Query::read(&query).highlight(&text) {
                prop_assert!(length > 0 && start >= last && start + length <= count);
                last = start + length;
            }
        }
    }
}
