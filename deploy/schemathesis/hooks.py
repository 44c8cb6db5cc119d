"""What the document cannot say: with which key one comes, and what there is."""

import json
import os
import random
from urllib.parse import urlencode

import schemathesis

TOKEN = os.environ["CHAT_TOKEN"]
OTHER = os.environ["CHAT_OTHER"]
ADMIN_KEY = os.environ["CHAT_ADMIN_KEY"]
THERE = json.loads(os.environ["CHAT_THERE"])

# These end what the others are about: another user asks for them.
ENDS = {
    ("DELETE", "/api/v1/sessions/current"),
    ("DELETE", "/api/v1/users/me"),
    ("DELETE", "/api/v1/sessions/{session}"),
    ("DELETE", "/api/v1/chats/{chat}"),
    ("DELETE", "/api/v1/applications/{token}/chats/{number}"),
    ("DELETE", "/api/v1/applications/{token}/webhooks/{webhook}"),
    ("DELETE", "/api/v1/users/me/push/{subscription}"),
}

chance = random.Random(7)


@schemathesis.hook
def filter_query(context, query):
    """A header of more than 16 KiB is refused before there is a path."""
    return len(urlencode(query or {}, doseq=True, errors="replace")) < 8 * 1024


@schemathesis.hook
def before_call(context, case, kwargs):
    """Most requests come with a good key, about something that there is; some with none, or about nothing."""
    ends = (case.method.upper(), case.path) in ENDS
    operator = case.path.startswith("/api/v1/applications") and chance.random() < 0.7
    key = OTHER if ends else ADMIN_KEY if operator else TOKEN
    if chance.random() < 0.9:
        case.headers["Authorization"] = f"Bearer {key}"
    for name in case.path_parameters:
        # A chat's number and a message's have one name.
        value = THERE.get(name)
        if value is not None and not ends and chance.random() < 0.8:
            case.path_parameters[name] = value
