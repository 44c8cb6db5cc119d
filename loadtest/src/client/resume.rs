//! Where a device is, as it says when it comes back: the last cursor, and the chats that moved after it. Pure.

use std::collections::{BTreeMap, HashSet};

use common::ids::{ChatId, Seq};

use super::views::Views;

/// Chats that are named in one `hello`: 45 bytes each, and a frame has 64 KiB. More have moved: there is nothing to resume from.
const NAMED: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    cursor: Option<String>,
    /// At most one more than can be named.
    moved: HashSet<ChatId>,
}

/// What is said in `hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) cursor: String,
    pub(crate) chats: BTreeMap<ChatId, Seq>,
}

impl Whereabouts {
    /// A chat is not where it was at the cursor.
    pub(crate) fn moved(&mut self, chat: ChatId) {
        if self.moved.len() <= NAMED {
            self.moved.insert(chat);
        }
    }

    /// A session begins that does not go on where another ended.
    pub(crate) fn anew(&mut self, cursor: &str) {
        self.cursor = Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty());
        self.moved.clear();
    }

    /// Everything before `cursor` was shown. A chat with a hole is still to be named: what is missing may lie before the cursor.
    pub(crate) fn at(&mut self, cursor: &str, views: &Views) {
        self.cursor = Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty());
        self.moved.clear();
        views.with_holes().into_iter().for_each(|chat| self.moved(chat));
    }

    /// What to say. A chat that is to be read has no seq up to which it is had: it is not named.
    pub(crate) fn say(&self, views: &Views) -> Option<Said> {
        let cursor = self.cursor.clone().filter(|_| self.moved.len() <= NAMED)?;
        let chats = self.moved.iter().filter_map(|chat| Some((*chat, views.whole(*chat)?))).collect();
        Some(Said { cursor, chats })
    }
}

#[cfg(test)]
mod tests {
    use common::model::Head;

    use super::*;

    fn chats<const N: usize>(views: &mut Views, heads: [Seq; N]) -> [ChatId; N] {
        heads.map(|seq| {
            let chat = ChatId::random();
            views.read(chat, Head { number: 0, seq });
            chat
        })
    }

    #[test]
    fn what_moved_after_the_cursor_is_named_with_how_far_it_is_had() {
        let (mut whereabouts, mut views) = (Whereabouts::default(), Views::new(true));
        let [one, other] = chats(&mut views, [3, 4]);
        assert_eq!(whereabouts.say(&views), None, "no cursor, no resume");
        whereabouts.anew("a");
        whereabouts.moved(one);
        views.event(one, 4, None);
        assert_eq!(whereabouts.say(&views).unwrap(), Said { cursor: "a".into(), chats: [(one, 4)].into() });
        whereabouts.at("b", &views);
        whereabouts.moved(other);
        assert_eq!(whereabouts.say(&views).unwrap(), Said { cursor: "b".into(), chats: [(other, 4)].into() });
        whereabouts.anew("");
        assert_eq!(whereabouts.say(&views), None);
    }

    #[test]
    fn a_hole_is_named_however_far_the_cursor_is_and_what_is_to_be_read_is_not() {
        let (mut whereabouts, mut views) = (Whereabouts::default(), Views::new(true));
        let [holed, doubtful] = chats(&mut views, [3, 4]);
        views.event(holed, 9, None);
        views.doubt(doubtful);
        whereabouts.at("a", &views);
        whereabouts.moved(doubtful);
        whereabouts.moved(ChatId::random());
        assert_eq!(whereabouts.say(&views).unwrap().chats, [(holed, 3)].into());
    }

    #[test]
    fn more_chats_than_a_frame_holds_are_no_resume_until_the_next_cursor() {
        let (mut whereabouts, views) = (Whereabouts::default(), Views::new(true));
        whereabouts.anew("a");
        (0..NAMED).for_each(|_| whereabouts.moved(ChatId::random()));
        assert!(whereabouts.say(&views).is_some());
        (0..NAMED).for_each(|_| whereabouts.moved(ChatId::random()));
        assert_eq!(whereabouts.say(&views), None);
        assert_eq!(whereabouts.moved.len(), NAMED + 1);
        whereabouts.at("b", &views);
        assert!(whereabouts.say(&views).is_some());
    }
}
