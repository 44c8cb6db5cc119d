//! The words that stand in rows for kinds and roles: those of the wire.

use crate::{
    model::{ChatKind, Role},
    notifications::DeliveryState,
};

pub(crate) fn kind_word(kind: ChatKind) -> &'static str {
    match kind {
        ChatKind::Direct => "direct",
        ChatKind::Group => "group",
    }
}

pub(crate) fn kind(word: &str) -> Option<ChatKind> {
    [ChatKind::Direct, ChatKind::Group].into_iter().find(|kind| kind_word(*kind) == word)
}

pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

pub(crate) fn role(word: &str) -> Option<Role> {
    [Role::Member, Role::Admin, Role::Owner].into_iter().find(|role| role_word(*role) == word)
}

pub(crate) fn state_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::GivenUp => "given_up",
    }
}

pub(crate) fn state(word: &str) -> Option<DeliveryState> {
    [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::GivenUp]
        .into_iter()
        .find(|state| state_word(*state) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_in_rows_are_those_of_the_wire() {
        for known in [Role::Member, Role::Admin, Role::Owner] {
            assert_eq!(serde_json::to_value(known).unwrap(), role_word(known));
            assert_eq!(role(role_word(known)), Some(known));
        }
        for known in [ChatKind::Direct, ChatKind::Group] {
            assert_eq!(serde_json::to_value(known).unwrap(), kind_word(known));
            assert_eq!(kind(kind_word(known)), Some(known));
        }
        for known in [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::GivenUp] {
            assert_eq!(serde_json::to_value(known).unwrap(), state_word(known));
            assert_eq!(state(state_word(known)), Some(known));
        }
        assert_eq!(role("king"), None);
    }
}
