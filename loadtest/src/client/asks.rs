//! What a device asks for beside sends, written down before it is asked and when it is answered: edits and deletes over its socket, chats and
//! their members over REST.

use common::{
    ids::{ChatId, Number, Seq, UserId},
    model::{ChatView, ChatsPage},
    wire::client::{HistoryPage, Resumed},
};

use super::{Client, Done, Request, Undone, frames::definite, http::HttpError};
use crate::journal::{Answer, Ask, Counted, Kept, Print};

fn counted(chat: &ChatView) -> Counted {
    Counted { chat: chat.id, messages: chat.messages_count, unread: chat.unread_count }
}

impl Client {
    /// Changes a message.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn edit(&self, chat: ChatId, number: Number, body: &str) -> Result<Option<Seq>, Undone> {
        let ask = Ask::Edit { chat, number, body: Print::of(body) };
        self.change(ask, Request::Edit { chat, number, body: body.to_owned() }).await
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn delete(&self, chat: ChatId, number: Number) -> Result<Option<Seq>, Undone> {
        self.change(Ask::Delete { chat, number }, Request::Delete { chat, number }).await
    }

    /// Answers a message with an emoji, or takes that back.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn react(
        &self,
        chat: ChatId,
        number: Number,
        emoji: &str,
        on: bool,
    ) -> Result<Option<Seq>, Undone> {
        let emoji = emoji.to_owned();
        let ask = Ask::React { chat, number, emoji: emoji.clone(), on };
        self.change(ask, Request::React { chat, number, emoji, on }).await
    }

    /// Says that messages were read, up to `number`; gives where the read mark stands now.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn read(&self, chat: ChatId, number: Number) -> Result<Number, Undone> {
        let mark = self.journal().map(|journal| journal.asked(Ask::Read { chat, number }));
        let answer = match self.request(Request::Read { chat, number }).await {
            Ok(Done::Read(number)) => Ok(number),
            Ok(_) => Err(Undone::Unknown),
            Err(undone) => Err(undone),
        };
        self.note(mark, || match answer {
            Ok(number) => Answer::Read { number },
            Err(Undone::Refused(code)) if definite(code) => Answer::Refused { code },
            Err(_) => Answer::Unknown,
        });
        answer
    }

    /// Opens the direct chat with `user`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn open_direct(&self, user: UserId) -> Result<ChatId, HttpError> {
        self.noted(Ask::Direct { with: user }, self.session().open_direct(user), Some).await
    }

    /// Makes a group of this user and `members`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn create_group(&self, name: &str, members: &[UserId]) -> Result<ChatId, HttpError> {
        let ask = Ask::Group { members: members.to_vec() };
        self.noted(ask, self.session().create_group(name, members), Some).await
    }

    /// Lets `user` into a group.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn add_member(&self, chat: ChatId, user: UserId) -> Result<(), HttpError> {
        self.noted(Ask::Add { chat, user }, self.session().add_member(chat, user), |()| None).await
    }

    /// Takes `user` out of a group.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn remove_member(&self, chat: ChatId, user: UserId) -> Result<(), HttpError> {
        self.noted(Ask::Remove { chat, user }, self.session().remove_member(chat, user), |()| None).await
    }

    /// The newest messages below `before`, or of all, over the socket.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn newest(
        &self,
        chat: ChatId,
        before: Option<Number>,
        limit: u32,
    ) -> Result<HistoryPage, Undone> {
        let ask = Ask::History { chat, before, after: None, limit };
        let mark = self.journal().map(|journal| journal.asked(ask));
        let answer = match self.request(Request::Newest { chat, before, limit }).await {
            Ok(Done::Page(page)) => Ok(page),
            Ok(_) => Err(Undone::Unknown),
            Err(undone) => Err(undone),
        };
        self.note(mark, || match &answer {
            Ok(page) => Answer::Page {
                head: page.head,
                complete: page.complete,
                messages: page.messages.iter().map(Kept::from).collect(),
            },
            Err(Undone::Refused(code)) => Answer::Refused { code: *code },
            Err(Undone::Unknown) => Answer::Unknown,
        });
        answer
    }

    /// Asks once more for what came of a chat after `after`: how it was told, up to where.
    ///
    /// # Errors
    /// [`Undone`].
    pub async fn changes(&self, chat: ChatId, after: Seq) -> Result<Option<Resumed>, Undone> {
        let mark = self.journal().map(|journal| journal.asked(Ask::Changes { chat, after }));
        let answer = match self.request(Request::Changes { chat, after }).await {
            Ok(Done::Changes(told)) => Ok(told),
            Ok(_) => Err(Undone::Unknown),
            Err(undone) => Err(undone),
        };
        self.note(mark, || match answer {
            Ok(told) => Answer::Done { chat: Some(chat), seq: told.map(|told| told.to) },
            Err(Undone::Refused(code)) => Answer::Refused { code },
            Err(Undone::Unknown) => Answer::Unknown,
        });
        answer
    }

    /// A page of this user's chats with what is unread in them, over REST; pages from 1.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn chats(&self, page: u32) -> Result<ChatsPage, HttpError> {
        let mark = self.journal().map(|journal| journal.asked(Ask::Chats));
        let answer = self.session().chats(page).await;
        self.note(mark, || match &answer {
            Ok(page) => Answer::Chats { chats: page.results.iter().map(counted).collect() },
            Err(_) => Answer::Unknown,
        });
        answer
    }

    /// Ends this device's sign-in; the device signs in again by itself when its socket is closed.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn sign_out(&self) -> Result<(), HttpError> {
        self.noted(Ask::SignOut, self.session().sign_out(), |()| None).await
    }

    async fn change(&self, ask: Ask, request: Request) -> Result<Option<Seq>, Undone> {
        let mark = self.journal().map(|journal| journal.asked(ask));
        let answer = match self.request(request).await {
            Ok(Done::Ack(seq)) => Ok(seq),
            Ok(_) => Err(Undone::Unknown),
            Err(undone) => Err(undone),
        };
        self.note(mark, || match answer {
            Ok(seq) => Answer::Done { chat: None, seq },
            Err(Undone::Refused(code)) if definite(code) => Answer::Refused { code },
            Err(_) => Answer::Unknown,
        });
        answer
    }

    async fn noted<T: Copy>(
        &self,
        ask: Ask,
        request: impl Future<Output = Result<T, HttpError>>,
        chat: impl Fn(T) -> Option<ChatId>,
    ) -> Result<T, HttpError> {
        let mark = self.journal().map(|journal| journal.asked(ask));
        let answer = request.await;
        self.note(mark, || match &answer {
            Ok(done) => Answer::Done { chat: chat(*done), seq: None },
            Err(error) => error.surely_refused().map_or(Answer::Unknown, |code| Answer::Refused { code }),
        });
        answer
    }

    fn note(&self, mark: Option<u64>, answer: impl FnOnce() -> Answer) {
        if let (Some(journal), Some(mark)) = (self.journal(), mark) {
            journal.answered(mark, answer());
        }
    }
}
