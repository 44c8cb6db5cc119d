//! What is a link in a text: whatever has a scheme, and whatever reads as the name of a host.
//!
//! A name counts by its ending: one of the commonest of the DNS, or a country's (ISO 3166). Two kinds of endings of countries count only with
//! more about them (`http:`, `www.`, a path): those that are everyday words of English, which follow a full stop whose space was left
//! out (`ok.so`), and those of common files (`main.rs`). And a country's ending in title case, as the first word of a sentence (`came.In`),
//! or behind a number (`1.in`), does not count. So some hosts pass that are one (`orf.at`), and some words are taken for one
//! (`tell.us`): who wants the former found, or the latter left, cannot have both.

use std::ops::Range;

use super::seen::{Seen, is_of_word};

/// Endings that count whatever they look like: the commonest.
const ENDINGS: &str = "app biz ca cc ch cn co com de dev edu es eu fr gg gov info io it jp link ly me net nl online org pl ru shop site to \
                       top tv uk xyz";

/// Endings of countries, as assigned (IANA, root zone), but for those above.
const COUNTRIES: &str = "ac ad ae af ag ai al ao aq ar au aw ax az ba bb bd bf bg bh bi bj bm bn bo br bs bt bv bw bz cd cf cg ci ck cl cm cr \
                         cu cv cw cx cy cz dj dk dm dz ec ee eg er et fi fj fk fm fo ga gb gd ge gf gh gi gl gm gn gp gq gr gs gt gu gw gy \
                         hk hm hn hr ht hu id ie il im in iq ir je jm jo ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ma \
                         mc mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx mz na nc ne nf ng ni np nr nu nz om pa pe pf pg ph pk pm pn pr \
                         pt pw qa re ro rw sa sb sc sd se sg si sk sl sm sn sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn tr tt tw \
                         tz ua ug us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw";

/// Endings of countries that are everyday words, and those of files.
const WORDS: &str = "am as at be by do is my no so \
                     md ps py rs sh";

/// Characters of an authority that are looked at: a host's name has 253 at most, and few have anything before an `@`.
const AUTHORITY: usize = 1_024;
/// Of the first part of a mail address (RFC 5321, 4.5.3.1.1).
const LOCAL_PART: usize = 64;

/// Where links stand, in the folded text. `is_own`: whether a host is one that may be linked to; `text`: what was folded.
pub(super) fn find(seen: &Seen, text: &[char], is_own: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begin = 0;
    for piece in seen.chars.split(|char| is_between(*char)) {
        let end = begin + piece.len();
        let finder = Finder { seen, text, begin, end, is_own: &is_own };
        let bare_to = match finder.with_scheme() {
            Some((link, is_own)) => {
                let start = link.start;
                found.extend((!is_own).then_some(link));
                start
            }
            None => end,
        };
        finder.bare(bare_to, &mut found);
        begin = end + 1;
    }
    found
}

/// What no link goes on behind: spaces, quotes, brackets, and whatever has no place in an address, as dashes and emoji.
fn is_between(char: char) -> bool {
    match char.is_ascii() {
        true => char.is_whitespace() || "<>\"`|()[]{},".contains(char),
        false => !is_of_word(char),
    }
}

/// Looks through a piece of the text.
struct Finder<'a, F> {
    seen: &'a Seen,
    text: &'a [char],
    begin: usize,
    end: usize,
    is_own: &'a F,
}

impl<F: Fn(&str) -> bool> Finder<'_, F> {
    fn at(&self, at: usize) -> Option<char> {
        (self.begin..self.end).contains(&at).then(|| self.seen.chars.get(at).copied()).flatten()
    }

    fn text_of(&self, range: Range<usize>) -> String {
        self.seen.chars.get(range).into_iter().flatten().collect()
    }

    /// The first place from `at` on where it is not so any more.
    fn while_at(&self, mut at: usize, is_so: impl Fn(char) -> bool) -> usize {
        while self.at(at).is_some_and(&is_so) {
            at += 1;
        }
        at
    }

    /// Likewise, so many places on at the most: what is looked at again and again is short, however long the text.
    fn while_near(&self, at: usize, most: usize, is_so: impl Fn(char) -> bool) -> usize {
        (at..at + most).find(|at| !self.at(*at).is_some_and(&is_so)).unwrap_or(at + most)
    }

    /// The link with a scheme in this piece, which goes on to its end, and whether it leads to an own host.
    fn with_scheme(&self) -> Option<(Range<usize>, bool)> {
        for colon in (self.begin..self.end).filter(|at| self.at(*at) == Some(':')) {
            let mut start = colon;
            while start > self.begin && self.at(start - 1).is_some_and(|char| char.is_ascii_alphanumeric()) {
                start -= 1;
            }
            let slashes = self.while_at(colon + 1, |char| char == '/' || char == '\\');
            let has_slashes = self.at(colon + 1) == Some('/') && self.at(colon + 2) == Some('/');
            // Browsers go there with any number of slashes, whichever way they lean.
            let is_web = matches!(self.text_of(start..colon).as_str(), "http" | "https");
            if start == colon || !(has_slashes || is_web) {
                continue;
            }
            // Between two slashes and a third there is no host: `file:///`.
            let from = if has_slashes && !is_web { colon + 3 } else { slashes };
            let end = self.while_near(from, AUTHORITY, |char| !"/\\?#".contains(char));
            let authority = self.text_of(from..end);
            let host = authority.rsplit('@').next().and_then(|host| host.split(':').next());
            let host = host.unwrap_or_default().trim_end_matches(|char| !is_of_word(char));
            if host.is_empty() || !has_slashes && !host.contains('.') {
                continue;
            }
            // Where more follows than is looked at, the host is not known.
            let is_own = end < from + AUTHORITY && (self.is_own)(host);
            return Some((start..self.end, is_own));
        }
        None
    }

    /// Links without a scheme, up to `to`.
    fn bare(&self, to: usize, found: &mut Vec<Range<usize>>) {
        let mut at = self.begin;
        while at < to {
            if !self.at(at).is_some_and(is_of_label) {
                at += 1;
                continue;
            }
            let (start, end) = (at, self.host_from(at));
            let path = self.at(end).is_some_and(|char| "/\\?#".contains(char))
                || self.at(end) == Some(':') && self.at(end + 1).is_some_and(|char| char.is_ascii_digit());
            let local = self.while_near(end, LOCAL_PART, |char| is_of_word(char) || "._%+-".contains(char));
            if self.at(local) == Some('@') && self.at(local + 1).is_some_and(is_of_word) {
                // The first part of a mail address, which is no link.
                at = local + 1;
                let host = self.host_from(at);
                let leads_on = self.at(host).is_some_and(|char| "/\\?#".contains(char));
                if !leads_on {
                    at = host;
                }
                continue;
            }
            let mentioned = start > self.begin && self.at(start - 1) == Some('@') && !path;
            let start = self.while_at(start, |char| char == '-');
            let host = self.text_of(start..end);
            let host = host.trim_end_matches('-');
            if mentioned || !self.is_host(host, end, path) {
                at = end;
                continue;
            }
            let end = if path { self.end } else { end };
            if !(self.is_own)(host) {
                found.push(start..end);
            }
            at = end;
        }
    }

    /// The end of what may be the name of a host: labels with a dot between them.
    fn host_from(&self, at: usize) -> usize {
        let mut end = self.while_at(at, is_of_label);
        while end > at && self.at(end) == Some('.') && self.at(end + 1).is_some_and(is_of_label) {
            end = self.while_at(end + 1, is_of_label);
        }
        end
    }

    /// Whether it is one. `end`: where it ends.
    fn is_host(&self, host: &str, end: usize, path: bool) -> bool {
        let Some((name, ending)) = host.rsplit_once('.') else { return false };
        let label = name.rsplit('.').next().unwrap_or_default();
        let has = |endings: &str| endings.split(' ').any(|one| one == ending);
        if name.starts_with("www") && name != "www" || has(ENDINGS) || ending.starts_with("xn--") {
            return true;
        }
        let wordlike = self.is_title(end) || !label.contains(char::is_alphabetic);
        has(WORDS) && path || has(COUNTRIES) && (path || !wordlike)
    }

    /// Whether the two letters before `end` are written as the beginning of a sentence.
    fn is_title(&self, end: usize) -> bool {
        let letter = |at: usize| self.text.get(self.seen.origin(at..at + 1).start).copied();
        let (first, second) = (end.checked_sub(2).and_then(letter), end.checked_sub(1).and_then(letter));
        first.is_some_and(char::is_uppercase) && second.is_some_and(char::is_lowercase)
    }
}

/// Whether a character is of a label of a host's name.
fn is_of_label(char: char) -> bool {
    is_of_word(char) || char == '-'
}
