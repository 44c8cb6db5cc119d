//! Words and links in a message, looked for and masked (SP-2): pure, and compiled once for each reading of an application's settings.
//!
//! A listed word counts as a whole word, whatever its case, its width, and the form in which its accents were typed; one of a script that puts no
//! spaces between words counts wherever it stands. What is invisible inside a word does not hide it. This keeps honest people civil; who wants
//! to be rude finds a way.

mod links;
mod seen;

use std::{collections::HashSet, ops::Range};

use self::seen::{Seen, is_of_word};
use super::settings::{AppSettings, PolicyAction};

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
            let Seen { chars: word, .. } = Seen::of(&word.chars().collect::<Vec<_>>());
            if word.is_empty() {
                continue;
            }
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
        let seen = Seen::of(&chars);
        let mut found = if words { self.words_in(&seen) } else { Vec::new() };
        if !found.is_empty() && self.words == PolicyAction::Refuse {
            return Screened::RefusedWords;
        }
        if links {
            let links = links::find(&seen, &chars, |host| self.is_own(host));
            if !links.is_empty() && self.links == PolicyAction::Refuse {
                return Screened::RefusedLinks;
            }
            found.extend(links);
        }
        if found.is_empty() {
            return Screened::Fine;
        }
        for range in found {
            chars.get_mut(seen.origin(range)).into_iter().flatten().for_each(|char| *char = '*');
        }
        Screened::Masked(chars.into_iter().collect())
    }

    /// Where listed words stand, in the folded text.
    fn words_in(&self, seen: &Seen) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut start = 0;
        for run in seen.chars.split(|char| !is_of_word(*char)) {
            if !run.is_empty() && self.whole.contains(&run.iter().collect::<String>()) {
                found.push(start..start + run.len());
            }
            start += run.len() + 1;
        }
        for word in &self.anywhere {
            let places =
                seen.chars.windows(word.len()).enumerate().filter(|(_, window)| *window == word.as_slice());
            found.extend(places.map(|(at, window)| at..at + window.len()));
        }
        found
    }

    fn is_own(&self, host: &str) -> bool {
        self.own_hosts.iter().any(|own| {
            host.strip_suffix(own.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
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
        let list = ["Darn", "ärger", "笨蛋", "Straße"].map(str::to_owned).into();
        Content::new(&AppSettings {
            words: Words { list, action: words },
            links: Links { action: links, own_hosts: vec!["Example.org".into()] },
            ..AppSettings::default()
        })
    }

    #[test]
    fn an_own_host_is_not_believed_behind_which_another_may_follow() {
        let content = content(PolicyAction::Allow, PolicyAction::Refuse);
        for (padding, refused) in [(0, false), (10, true), (5_000, true)] {
            let at = if padding > 0 { format!(":{}@evil.com", "a".repeat(padding)) } else { String::new() };
            let screened = content.screen(&format!("http://example.org{at}/x"));
            assert_eq!(screened == Screened::RefusedLinks, refused, "{padding}: {screened:?}");
        }
    }

    #[test]
    fn listed_words_are_masked_whole_and_whatever_their_case() {
        let content = content(PolicyAction::Mask, PolicyAction::Allow);
        for (text, masked) in [
            ("DARN it, darn!", "**** it, ****!"),
            ("so viel ÄRGER", "so viel *****"),
            ("d\u{200b}arn", "*****"),
            ("你这个笨蛋啊", "你这个**啊"),
            // The same letters, typed or drawn otherwise.
            ("so viel a\u{308}rger!", "so viel ******!"),
            ("ｄａｒｎ it", "**** it"),
            ("🙂 𝐝𝐚𝐫𝐧", "🙂 ****"),
            ("d\u{336}a\u{336}r\u{336}n\u{336}", "********"),
            ("STRASSE straße", "******* ******"),
            ("ﬁ darn", "ﬁ ****"),
        ] {
            assert_eq!(content.screen(text), Screened::Masked(masked.into()), "{text}");
        }
        for fine in
            ["darning socks", "", "İstanbul ﬁne", "http://darned.com", "Arger", "A\u{301}rger", "डार्न"]
        {
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
            "see:evil.com",
            "http:evil.com",
            "https:\\/evil.test",
            "HTTPS:/evil.test",
            "“evil.com”",
            "‘evil.com’",
            "«evil.com»",
            "「evil.com」",
            "**evil.com**",
            "_evil.com_",
            "`evil.com`",
            "evil.com…",
            "evil.com...really",
            "evil.com—now",
            "now–evil.com",
            "evil.com, and",
            "🙂evil.com🙂",
            "ｅｖｉｌ．ｃｏｍ",
            "evil。com",
            "evil.com:8080",
            "evil.com?x=1",
            "evil.com#x",
            "ana@evil.com/x",
            "*https://evil.test*",
            "evil.com:https://example.org",
            "https://example.org.evil.test",
            "https://example.org*.evil.test",
            "evil.ai",
            "x.ai",
            "evil.us",
            "EVIL.IN",
            "evil.com.br",
            "evil.in/x",
            "evil.so/x",
            "www.evil.so",
            "http:evil.so",
            "öl.xn--p1ai",
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
            "e.g",
            "i.e. so",
            "a.m. or p.m.",
            "z.B.",
            "U.S.A.",
            "ok.so",
            "that is it.so be it",
            "she came.In the end",
            "1.in the first place",
            "at 5.am",
            "src/main.rs",
            "README.md",
            "run.sh",
            "@anna.it",
            "john.me+x@mail.com",
            "mail:ana@mail.com!",
            "http:",
            "http: it is a protocol",
            "note:this",
            "“https://example.org/a”",
            "**https://example.org**",
            "https://example.org…",
            "https://example.org—see",
            "example.org/evil.com",
            "chat.example.org.",
            "://evil",
            "C:\\notes.txt",
            "好的。it is",
        ] {
            assert_eq!(content.screen(fine), Screened::Fine, "{fine}");
        }
        for (text, masked) in [
            ("a https://x.test b", "a ************** b"),
            ("see:evil.com", "see:********"),
            ("“evil.com”, **evil.com**", "“********”, ************"),
            ("e\u{301}te\u{301} evil.com—now", "e\u{301}te\u{301} ********—now"),
            ("ﬁ ｅｖｉｌ．ｃｏｍ/x…", "ﬁ ***********"),
            ("example.org evil.com/a?b evil.ai", "example.org ************ *******"),
        ] {
            assert_eq!(content.screen(text), Screened::Masked(masked.into()), "{text}");
        }
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
