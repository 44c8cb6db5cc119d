//! Words and links in a message, looked for and masked (SP-2): pure, and compiled once for each reading of an application's settings.
//!
//! A listed word counts as a whole word, whatever its case; one of a script that puts no spaces between words counts wherever it stands.
//! What is invisible inside a word does not hide it. This keeps honest people civil; who wants to be rude finds a way.

use std::collections::HashSet;

use super::settings::{AppSettings, PolicyAction};

/// Endings that make `name.ending` a link without `http://` or `www.`: the commonest of the DNS. With all of them, file names and sentences
/// without a space after their full stop would be links.
const ENDINGS: [&str; 36] = [
    "app", "biz", "ca", "cc", "ch", "cn", "co", "com", "de", "dev", "edu", "es", "eu", "fr", "gg", "gov",
    "info", "io", "it", "jp", "link", "ly", "me", "net", "nl", "online", "org", "pl", "ru", "shop", "site",
    "to", "top", "tv", "uk", "xyz",
];

/// What a policy says of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screened {
    /// It may stand as it is.
    Fine,
    /// It may stand like this.
    Masked(String),
    /// It has a word that is refused.
    RefusedWords,
    /// It has a link, and links are refused.
    RefusedLinks,
}

/// An application's policies about what messages say.
#[derive(Clone, Debug, Default)]
pub struct Content {
    words: PolicyAction,
    links: PolicyAction,
    whole: HashSet<String>,
    /// Of scripts without spaces.
    anywhere: Vec<Vec<char>>,
    own_hosts: Vec<String>,
}

impl Content {
    /// The policies of these settings.
    pub fn new(settings: &AppSettings) -> Self {
        let (mut whole, mut anywhere) = (HashSet::new(), Vec::new());
        for word in &settings.words.list {
            let word: Vec<char> = word.chars().map(fold).collect();
            if word.iter().copied().any(is_unspaced) {
                anywhere.push(word);
            } else {
                whole.insert(word.into_iter().collect());
            }
        }
        let own_hosts = settings.links.own_hosts.iter().map(|host| host.to_lowercase()).collect();
        Self { words: settings.words.action, links: settings.links.action, whole, anywhere, own_hosts }
    }

    /// What they say of a text.
    pub fn screen(&self, text: &str) -> Screened {
        let words = self.words != PolicyAction::Allow && !(self.whole.is_empty() && self.anywhere.is_empty());
        let links = self.links != PolicyAction::Allow;
        if !words && !links {
            return Screened::Fine;
        }
        let mut chars: Vec<char> = text.chars().collect();
        let mut found = if words { self.words_in(&chars) } else { Vec::new() };
        if !found.is_empty() && self.words == PolicyAction::Refuse {
            return Screened::RefusedWords;
        }
        if links {
            let links = self.links_in(&chars);
            if !links.is_empty() && self.links == PolicyAction::Refuse {
                return Screened::RefusedLinks;
            }
            found.extend(links);
        }
        if found.is_empty() {
            return Screened::Fine;
        }
        for range in found {
            chars.get_mut(range).into_iter().flatten().for_each(|char| *char = '*');
        }
        Screened::Masked(chars.into_iter().collect())
    }

    fn words_in(&self, text: &[char]) -> Vec<std::ops::Range<usize>> {
        let mut found = Vec::new();
        let mut start = 0;
        for run in text.split(|char| !(char.is_alphanumeric() || is_invisible(*char))) {
            let word: String =
                run.iter().filter(|char| !is_invisible(**char)).map(|char| fold(*char)).collect();
            if self.whole.contains(&word) {
                found.push(start..start + run.len());
            }
            start += run.len() + 1;
        }
        if !self.anywhere.is_empty() {
            let folded: Vec<char> = text.iter().copied().map(fold).collect();
            for word in &self.anywhere {
                let places =
                    folded.windows(word.len()).enumerate().filter(|(_, window)| *window == word.as_slice());
                found.extend(places.map(|(at, window)| at..at + window.len()));
            }
        }
        found
    }

    fn links_in(&self, text: &[char]) -> Vec<std::ops::Range<usize>> {
        let mut found = Vec::new();
        let mut start = 0;
        for piece in text.split(|char| char.is_whitespace() || "<>\"()[]{},".contains(*char)) {
            let folded: String =
                piece.iter().filter(|char| !is_invisible(**char)).map(|char| fold(*char)).collect();
            if host(&folded).is_some_and(|host| !self.is_own(host)) {
                found.push(start..start + piece.len());
            }
            start += piece.len() + 1;
        }
        found
    }

    fn is_own(&self, host: &str) -> bool {
        self.own_hosts.iter().any(|own| {
            host.strip_suffix(own.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
}

/// The host of a link; none when the piece of text is no link.
fn host(piece: &str) -> Option<&str> {
    let after_scheme = piece.find("://").and_then(|at| {
        let (before, rest) = (piece.get(..at)?, piece.get(at + 3..)?);
        before.ends_with(|char: char| char.is_ascii_alphanumeric()).then_some(rest)
    });
    // Browsers take a backslash for a slash.
    let authority = after_scheme.unwrap_or(piece).split(['/', '\\', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?.trim_end_matches(['.', '!', ';', '\'']);
    if after_scheme.is_some() {
        return (!host.is_empty()).then_some(host);
    }
    // A mail address is no link.
    if authority.contains('@') {
        return None;
    }
    let (name, ending) = host.rsplit_once('.')?;
    let labelled = name.split('.').all(|label| {
        !label.is_empty() && label.chars().all(|char| char.is_alphanumeric() || char == '-' || char == '_')
    });
    (labelled && (name.starts_with("www") && name != "www" || ENDINGS.contains(&ending))).then_some(host)
}

/// Small letters; a letter that becomes several stays, so that places in the text stay as well.
fn fold(char: char) -> char {
    let mut small = char.to_lowercase();
    match (small.next(), small.next()) {
        (Some(one), None) => one,
        _ => char,
    }
}

/// Zero-width characters and the soft hyphen (Unicode, general category Cf).
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Scripts that put no spaces between words: Thai, Lao, Khmer, Burmese, kana, Han.
fn is_unspaced(char: char) -> bool {
    matches!(
        char,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applications::{Links, Words};

    fn content(words: PolicyAction, links: PolicyAction) -> Content {
        let list = ["Darn", "ärger", "笨蛋"].map(str::to_owned).into();
        Content::new(&AppSettings {
            words: Words { list, action: words },
            links: Links { action: links, own_hosts: vec!["Example.org".into()] },
            ..AppSettings::default()
        })
    }

    #[test]
    fn listed_words_are_masked_whole_and_whatever_their_case() {
        let content = content(PolicyAction::Mask, PolicyAction::Allow);
        for (text, masked) in [
            ("DARN it, darn!", "**** it, ****!"),
            ("so viel ÄRGER", "so viel *****"),
            ("d\u{200b}arn", "*****"),
            ("你这个笨蛋啊", "你这个**啊"),
        ] {
            assert_eq!(content.screen(text), Screened::Masked(masked.into()), "{text}");
        }
        for fine in ["darning socks", "", "İstanbul ﬁne", "http://darned.com"] {
            assert_eq!(content.screen(fine), Screened::Fine, "{fine}");
        }
    }

    #[test]
    fn links_out_are_found_and_own_ones_are_not() {
        let content = content(PolicyAction::Allow, PolicyAction::Mask);
        for link in [
            "http://evil.test/x",
            "see(https://evil.test)",
            "www.evil.test",
            "Evil.COM.",
            "a-b.co.uk/path?x",
            "https://example.org@evil.test/",
            "https://evil.test\\@example.org",
            "https://notexample.org",
            "ftp://evil.test",
            "evil\u{200b}.com",
        ] {
            assert!(matches!(content.screen(link), Screened::Masked(_)), "{link}");
        }
        for fine in [
            "https://example.org/a",
            "https://chat.EXAMPLE.org:8080",
            "end.Next",
            "e.g. this",
            "notes.txt",
            "www.",
            "://",
            "ana@mail.com",
            "1.5",
            "...",
        ] {
            assert_eq!(content.screen(fine), Screened::Fine, "{fine}");
        }
        assert_eq!(content.screen("a https://x.test b"), Screened::Masked("a ************** b".into()));
    }

    #[test]
    fn what_is_refused_is_refused_before_anything_is_masked() {
        let text = "darn http://evil.test";
        assert_eq!(content(PolicyAction::Refuse, PolicyAction::Mask).screen(text), Screened::RefusedWords);
        assert_eq!(content(PolicyAction::Mask, PolicyAction::Refuse).screen(text), Screened::RefusedLinks);
        assert_eq!(content(PolicyAction::Allow, PolicyAction::Allow).screen(text), Screened::Fine);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_screened_and_keeps_its_length(text in ".{0,200}") {
            if let Screened::Masked(masked) = content(PolicyAction::Mask, PolicyAction::Mask).screen(&text) {
                proptest::prop_assert_eq!(masked.chars().count(), text.chars().count());
            }
        }
    }
}
