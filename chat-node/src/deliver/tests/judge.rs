//! What a client knows by the frames it was sent, held against the truth.

use super::*;

/// What a client knows of the chat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum View {
    /// It reads the chat now, which includes this change, and may include later ones.
    Reads(usize),
    /// It has everything up to here.
    Has(usize),
    /// It is not in the chat.
    Gone,
}

/// Holds a client's frames against the rules, and gives what it knows at the end.
pub(super) fn judge(client: &Client, truth: &Truth) -> View {
    let mut view = View::Reads(client.first.lock().as_ref().unwrap().confirmed);
    // What it had before its newest session. A cursor may be older than what was shown when it was told; then some is told again, and a
    // chat may be new again.
    let mut had = 0;
    // The newest event of its session.
    let mut last = None;
    for (confirmed, frame) in &client.frames {
        let frames = &client.frames;
        let kind = frame["type"].as_str().unwrap();
        let seq = frame["seq"].as_u64().map(|seq| seq as usize);
        if let Some(seq) = seq {
            let next = last.is_none_or(|last| seq == last + 1) || kind == "new_chat";
            assert!(next, "{seq} after {last:?}: {frames:?}");
            last = Some(seq);
            let member_at = if kind == "chat_deleted" { seq - 1 } else { seq };
            let allowed = truth.members(member_at).contains(&client.user);
            assert!(allowed, "{} is no member at {seq}: {frames:?}", client.user);
        } else if kind != "resumed" {
            last = None;
        }
        view = match (kind, view, seq) {
            // It had read it by then, if it might.
            (BACK, View::Reads(at) | View::Has(at), _) => {
                had = at;
                let may = matches!(view, View::Has(_)) || truth.members(at).contains(&client.user);
                if may { View::Has(at) } else { View::Gone }
            }
            (BACK, View::Gone, _) => view,
            (ANEW, ..) => View::Reads(*confirmed),
            ("resumed", ..) => match &frame["chats"][CHAT.chat.to_string()] {
                serde_json::Value::Null => view,
                told if told["complete"] == true => {
                    let to = told["to"].as_u64().unwrap() as usize;
                    let whole = view == View::Has(to.max(had)) || view == View::Gone && to <= had;
                    assert!(whole, "{view:?}: {frames:?}");
                    view
                }
                _ => {
                    // It reads anew, also a chat that it was just told of.
                    last = None;
                    View::Reads(*confirmed)
                }
            },
            // Once more than it knew, when it came in and went before it could be told.
            ("chat_removed", ..) => {
                had = had.max(*confirmed);
                View::Gone
            }
            ("chat_reload", View::Has(_) | View::Reads(_), _) => View::Reads(*confirmed),
            // It had read that it is in the chat no more, and reads again.
            ("chat_reload", View::Gone, _) if frames.iter().any(|(_, frame)| frame["type"] == BACK) => {
                let inside = truth.members(*confirmed).contains(&client.user);
                if inside { View::Reads(*confirmed) } else { view }
            }
            (_, _, None) => panic!("{kind} when {view:?}: {frames:?}"),
            ("new_chat", _, Some(seq)) => {
                assert!(!matches!(view, View::Has(at) if at > had), "it has it: {frames:?}");
                // Whatever it had before is another life of the chat.
                had = seq;
                View::Has(seq)
            }
            ("chat_deleted", _, Some(seq)) => {
                had = had.max(seq);
                View::Gone
            }
            (_, View::Gone, Some(seq)) => {
                assert!(seq <= had, "{kind} when it is gone: {frames:?}");
                view
            }
            (_, View::Reads(at), Some(seq)) => {
                assert!(seq <= at + 1, "begins at {seq} after {at}: {frames:?}");
                if seq <= at { view } else { View::Has(seq) }
            }
            (_, View::Has(at), Some(seq)) => {
                assert!(seq <= had || seq == at + 1, "{seq} after {at}: {frames:?}");
                View::Has(at.max(seq))
            }
        };
    }
    view
}

/// Everybody who is there knows everything.
pub(super) fn judge_end(client: &Client, truth: &Truth) {
    let view = judge(client, truth);
    let end = truth.changes.len();
    let ready = client.ready.lock().clone().unwrap();
    if truth.members(end).contains(&client.user) {
        let whole = match view {
            View::Reads(at) => at == end,
            View::Has(at) => at == end,
            View::Gone => false,
        };
        assert!(whole, "{} of {end} changes known at the end: {:?}", format_args!("{view:?}"), client.frames);
    } else if ready.listed && !truth.unannounced {
        assert_eq!(view, View::Gone, "not told of its removal: {:?}", client.frames);
    } else {
        assert!(!matches!(view, View::Has(_)), "not told of its removal: {:?}", client.frames);
    }
    assert_eq!(client.handle.outbox.closing(), None);
}
