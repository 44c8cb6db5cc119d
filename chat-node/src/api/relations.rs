//! `/contacts` and `/blocks` (ID-8, ID-9), and contacts under the name that older clients know.

use axum::{Json as Answer, extract::State, response::IntoResponse};
use common::{
    document::{Operation, Routes, says},
    ids::UserId,
    problem::Problem,
    store::Relation,
    token::Caller,
    wire::codes::ErrorCode,
};
use http::StatusCode;

use super::{
    Api, example,
    extract::One,
    query::{PageOf, PageOfContacts},
};

pub(super) fn routes() -> Routes<Api> {
    // Oneself is refused, and one too many.
    let relates = |summary| says(summary).done().refuses(&[ErrorCode::Invalid, ErrorCode::TooLarge]);
    Routes::new("Contacts and blocks")
        .get("/contacts", contacts, lists_contacts())
        .put("/contacts/{user}", add_contact, relates("Makes somebody a contact of the caller's"))
        .delete("/contacts/{user}", remove_contact, says("Takes somebody from the caller's contacts").done())
        .get(
            "/blocks",
            blocks,
            says("Whom the caller has blocked, the newest first").ok(&example::page(vec![example::user()])),
        )
        .put("/blocks/{user}", block, relates("Blocks somebody"))
        .delete("/blocks/{user}", unblock, says("Takes a block back").done())
}

/// Outside `/api`.
pub(super) fn older_routes() -> Routes<Api> {
    Routes::new("Contacts and blocks").get("/v1/users/{user}/contacts", contacts_of, lists_contacts()).get(
        "/v1/users/{user}/contacts/",
        contacts_of,
        lists_contacts(),
    )
}

fn lists_contacts() -> Operation {
    says("The caller's contacts, the most recently chatted with first")
        .ok(&example::page(vec![example::contact()]))
}

async fn contacts(
    State(api): State<Api>,
    caller: Caller,
    PageOfContacts(page): PageOfContacts,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.contacts(&caller, page).await?))
}

async fn contacts_of(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
    PageOfContacts(page): PageOfContacts,
) -> Result<impl IntoResponse, Problem> {
    // Nobody sees another's.
    if user != caller.user {
        return Err(Problem::not_found("user"));
    }
    Ok(Answer(api.people.contacts(&caller, page).await?))
}

async fn add_contact(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    api.people.relate(&caller, Relation::Contact, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_contact(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    api.people.unrelate(&caller, Relation::Contact, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn blocks(
    State(api): State<Api>,
    caller: Caller,
    PageOf(page): PageOf,
) -> Result<impl IntoResponse, Problem> {
    Ok(Answer(api.people.blocks(&caller, page).await?))
}

async fn block(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    api.people.relate(&caller, Relation::Block, user).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unblock(
    State(api): State<Api>,
    caller: Caller,
    One(user): One<UserId>,
) -> Result<impl IntoResponse, Problem> {
    api.people.unrelate(&caller, Relation::Block, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
