//! The name under which a member sees a chat.

use crate::{ids::UserId, model::MemberView};

/// How many names stand for a group without one.
const NAMES: usize = 3;

/// Stands for a user whose name is not known.
const NAMELESS: &str = "Unknown user";

/// The name of a chat as `viewer` sees it: its own; else those of the others (`members` are the first of `count`), at most three
/// and " and N more"; else, when nobody else is in it, the viewer's. Never empty.
pub(crate) fn title(name: Option<String>, viewer: UserId, members: &[MemberView], count: u64) -> String {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        return name;
    }
    let shown = |member: &MemberView| {
        if member.name.is_empty() { NAMELESS.to_owned() } else { member.name.clone() }
    };
    let names: Vec<String> =
        members.iter().filter(|member| member.id != viewer).take(NAMES).map(shown).collect();
    if names.is_empty() {
        return members.first().map_or_else(|| NAMELESS.to_owned(), shown);
    }
    // The viewer is one of the count; not so the application itself, which is in no chat.
    let others = count.saturating_sub(u64::from(viewer != UserId::APPLICATION));
    let more = others.saturating_sub(names.len() as u64);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Role, time::Millis};

    fn members(names: &[&str]) -> Vec<MemberView> {
        let member = |name: &&str| MemberView {
            id: UserId::random(),
            name: (*name).into(),
            role: Role::Member,
            joined_at: Millis(0),
        };
        names.iter().map(member).collect()
    }

    #[test]
    fn a_chat_without_a_name_is_called_after_the_others() {
        let all = members(&["Ana", "Ben", "", "Dan", "Eva"]);
        let ana = all[0].id;
        assert_eq!(title(Some("Course".into()), ana, &all, 5), "Course");
        assert_eq!(title(None, ana, &all[..2], 2), "Ben");
        assert_eq!(title(Some(String::new()), ana, &all[..4], 4), "Ben, Unknown user, Dan");
        assert_eq!(title(None, ana, &all, 5), "Ben, Unknown user, Dan and 1 more");
        assert_eq!(title(None, ana, &all, 50_000), "Ben, Unknown user, Dan and 49996 more");
        assert_eq!(title(None, ana, &all[..1], 1), "Ana");
        assert_eq!(title(None, ana, &[], 0), "Unknown user");
    }

    #[test]
    fn the_application_is_none_of_those_after_whom_a_chat_is_called() {
        let all = members(&["Ana", "Ben", "Cem", "Dan"]);
        let seen = |count: u64| {
            let shown = all.get(..usize::try_from(count).unwrap()).unwrap_or(&all);
            title(None, UserId::APPLICATION, shown, count)
        };
        assert_eq!(seen(0), "Unknown user");
        assert_eq!(seen(1), "Ana");
        assert_eq!(seen(3), "Ana, Ben, Cem");
        assert_eq!(seen(4), "Ana, Ben, Cem and 1 more");
        assert_eq!(seen(50_000), "Ana, Ben, Cem and 49997 more");
    }
}
