//! Queries: pages and ranges, read strictly. A parameter that is not known is ignored; one that is known stands once and is a number
//! in its range.

use axum::extract::{FromRequestParts, Query};
use common::{
    ids::{AppId, ChatId, Number, UserId},
    model::{PageRequest, limits, storable},
    problem::Problem,
    store::Range,
    wire::client::FieldError,
};
use http::request::Parts;

use super::Api;
use crate::presence::ASKED;

/// Results on a page, unless asked otherwise (CH-1, ME-4).
pub(super) const PER_PAGE: u32 = 10;

/// Contacts on a page, unless asked otherwise (ID-8).
pub(super) const CONTACTS_PER_PAGE: u32 = 15;

/// Messages in an answer to the cursor form, unless asked otherwise (ME-4).
pub(super) const LIMIT: u32 = 50;

/// Characters of what may stand for an id: more than one has, so that what is too long is not found either.
const ID_CHARS: usize = 200;

/// The parameters of a query.
struct Params(Vec<(String, String)>);

impl Params {
    fn of(parts: &Parts) -> Result<Self, Problem> {
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Problem::invalid(FieldError::query("", "is not a query")))?;
        Ok(Self(pairs))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The number under `name`, at least `min`. One that is too large for 64 bits is the largest there is.
    fn number(&self, name: &str, min: u64) -> Result<Option<u64>, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        let bad = |msg: String| Problem::invalid(FieldError::query(name, msg));
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(bad("must stand once".into())),
        };
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { value.parse().unwrap_or(u64::MAX) } else { 0 };
        if is_number && number >= min {
            Ok(Some(number))
        } else {
            Err(bad(format!("must be a number from {min}")))
        }
    }

    /// The number under `name`, 1 to `max`.
    fn count(&self, name: &str, max: u32, default: u32) -> Result<u32, Problem> {
        let Some(number) = self.number(name, 1)? else { return Ok(default) };
        let count = u32::try_from(number).ok().filter(|count| *count <= max);
        count.ok_or_else(|| Problem::invalid(FieldError::query(name, format!("must be at most {max}"))))
    }

    /// The text under `name`, which must be there.
    fn text(&self, name: &str, max: usize) -> Result<String, Problem> {
        let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        let bad = |msg: String| Problem::invalid(FieldError::query(name, msg));
        match (values.next(), values.next()) {
            (Some(text), None) if (1..=max).contains(&text.chars().count()) && storable(text) => {
                Ok(text.clone())
            }
            (Some(_), None) => Err(bad(format!("must have 1 to {max} characters, and no U+0000"))),
            (Some(_), Some(_)) => Err(bad("must stand once".into())),
            (None, _) => Err(bad("is missing".into())),
        }
    }

    fn page(&self) -> Result<PageRequest, Problem> {
        self.page_from(1)
    }

    /// The page, where the first one is called `first`: 0 or 1.
    fn page_from(&self, first: u32) -> Result<PageRequest, Problem> {
        let page = self.number("page", first.into())?.unwrap_or(first.into());
        // No list is that long: past its end is past its end.
        let page = u32::try_from(page).unwrap_or(u32::MAX).saturating_add(1 - first);
        Ok(PageRequest { page, per_page: self.per_page(PER_PAGE)? })
    }

    fn per_page(&self, default: u32) -> Result<u32, Problem> {
        self.count("perPage", limits::PER_PAGE, default)
    }
}

/// The page that was asked for, counted from 0 there.
pub(crate) struct PageFromZero(pub(crate) PageRequest);

impl FromRequestParts<Api> for PageFromZero {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Params::of(parts)?.page_from(0).map(Self)
    }
}

/// A page of one group's messages, counted from 0: `groupID`, `page`, `perPage` (OP-6).
pub(crate) struct GroupPage {
    pub(crate) group: ChatId,
    pub(crate) page: PageRequest,
}

impl FromRequestParts<Api> for GroupPage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let params = Params::of(parts)?;
        // As in a path: what is malformed does not exist.
        let group = params.text("groupID", ID_CHARS)?.parse().map_err(|_| Problem::not_found("chat"))?;
        Ok(Self { group, page: params.page_from(0)? })
    }
}

/// The application that is named, if one is (OP-6).
pub(crate) struct OfApplication(pub(crate) Option<AppId>);

impl FromRequestParts<Api> for OfApplication {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let params = Params::of(parts)?;
        if !params.has("application") {
            return Ok(Self(None));
        }
        let named = params.text("application", ID_CHARS)?.parse();
        named.map(|app| Self(Some(app))).map_err(|_| Problem::not_found("application"))
    }
}

/// A page of chats, counted from 0, and how many messages of each (ME-10).
pub(super) struct BundleOf {
    pub(super) page: PageRequest,
    pub(super) messages: u32,
}

impl FromRequestParts<Api> for BundleOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let params = Params::of(parts)?;
        let messages = params.count("messages", limits::PER_PAGE, PER_PAGE)?;
        Ok(Self { page: params.page_from(0)?, messages })
    }
}

/// The page that was asked for.
pub(super) struct PageOf(pub(super) PageRequest);

impl FromRequestParts<Api> for PageOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Params::of(parts)?.page().map(Self)
    }
}

/// The page of contacts that was asked for.
pub(super) struct PageOfContacts(pub(super) PageRequest);

impl FromRequestParts<Api> for PageOfContacts {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let params = Params::of(parts)?;
        Ok(Self(PageRequest { per_page: params.per_page(CONTACTS_PER_PAGE)?, ..params.page()? }))
    }
}

/// People who are looked for by name (ID-7).
pub(super) struct Named {
    pub(super) query: String,
    pub(super) page: PageRequest,
}

impl FromRequestParts<Api> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let params = Params::of(parts)?;
        Ok(Self { query: params.text("query", limits::QUERY_CHARS)?, page: params.page()? })
    }
}

/// Users by their ids: `users=ID,ID`. What is no id is nobody's.
#[derive(Debug)]
pub(super) struct Users(pub(super) Vec<UserId>);

impl FromRequestParts<Api> for Users {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::of(&Params::of(parts)?)
    }
}

impl Users {
    fn of(params: &Params) -> Result<Self, Problem> {
        let bad = |msg: String| Problem::invalid(FieldError::query("users", msg));
        let mut values = params.0.iter().filter(|(known, _)| known == "users").map(|(_, value)| value);
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(bad("must stand once".into()));
        };
        let ids: Vec<&str> = value.split(',').filter(|id| !id.is_empty()).collect();
        if ids.is_empty() || ids.len() > ASKED {
            return Err(bad(format!("must name 1 to {ASKED} users, with commas between them")));
        }
        Ok(Self(ids.into_iter().filter_map(|id| id.parse().ok()).collect()))
    }
}

/// The name that an upload is to have (ME-7), as it was given.
pub(super) struct FileName(pub(super) Option<String>);

impl FromRequestParts<Api> for FileName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self(Params::of(parts)?.0.into_iter().find(|(known, _)| known == "name").map(|(_, name)| name)))
    }
}

/// Which messages were asked for (ME-4).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// A page, counted from the newest message.
    Page(PageRequest),
    /// So many on one side of a number.
    Range(Range, u32),
}

impl FromRequestParts<Api> for Which {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::of(&Params::of(parts)?)
    }
}

impl Which {
    fn of(params: &Params) -> Result<Self, Problem> {
        let cursor = ["before", "after", "limit"].into_iter().find(|name| params.has(name));
        let Some(cursor) = cursor else { return params.page().map(Self::Page) };
        if let Some(page) = ["page", "perPage"].into_iter().find(|name| params.has(name)) {
            return Err(Problem::invalid(FieldError::query(page, format!("does not go with {cursor}"))));
        }
        let limit = params.count("limit", limits::PER_PAGE, LIMIT)?;
        let before: Option<Number> = params.number("before", 1)?;
        let range = match (before, params.number("after", 0)?) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid(FieldError::query("after", "does not go with before")));
            }
            (None, Some(after)) => Range::After(after),
            (before, None) => Range::Before(before.unwrap_or(Number::MAX)),
        };
        Ok(Self::Range(range, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(query: &str) -> Result<Which, String> {
        let uri = format!("http://node/messages?{query}").parse().unwrap();
        let Query(pairs) = Query::try_from_uri(&uri).unwrap();
        Which::of(&Params(pairs)).map_err(|problem| {
            assert!(problem.errors.iter().all(|error| error.location == "query"));
            problem.errors[0].param.clone()
        })
    }

    #[test]
    fn messages_are_asked_for_by_page_or_by_number() {
        let page = |page, per_page| Ok(Which::Page(PageRequest { page, per_page }));
        let range = |range, limit| Ok(Which::Range(range, limit));
        for (query, expected) in [
            ("", page(1, 10)),
            ("page=3&perPage=100&other=x", page(3, 100)),
            ("page=99999999999999999999", page(u32::MAX, 10)),
            ("before=7", range(Range::Before(7), 50)),
            ("after=0&limit=1", range(Range::After(0), 1)),
            ("limit=100", range(Range::Before(Number::MAX), 100)),
            ("before=99999999999999999999", range(Range::Before(Number::MAX), 50)),
        ] {
            assert_eq!(which(query), expected, "{query}");
        }
    }

    #[test]
    fn bundles_count_their_pages_from_zero() {
        let page = |query: &str| {
            let uri = format!("http://node/chat/message?{query}").parse().unwrap();
            let Query(pairs) = Query::try_from_uri(&uri).unwrap();
            Params(pairs).page_from(0).map(|page| (page.page, page.per_page)).map_err(|problem| problem.code)
        };
        for (query, expected) in [
            ("", Ok((1, 10))),
            ("page=0", Ok((1, 10))),
            ("page=2&perPage=100", Ok((3, 100))),
            ("page=99999999999999999999", Ok((u32::MAX, 10))),
            ("page=-1", Err(common::wire::codes::ErrorCode::Invalid)),
            ("perPage=0", Err(common::wire::codes::ErrorCode::Invalid)),
        ] {
            assert_eq!(page(query), expected, "{query}");
        }
    }

    #[test]
    fn users_are_named_with_commas_between_them_and_not_too_many() {
        let users = |query: &str| {
            let uri = format!("http://node/presence?{query}").parse().unwrap();
            let Query(pairs) = Query::try_from_uri(&uri).unwrap();
            Users::of(&Params(pairs))
                .map(|Users(users)| users.len())
                .map_err(|problem| problem.errors[0].param.clone())
        };
        let id = UserId::random();
        let many = |count: usize| format!("users={}", vec![id.to_string(); count].join(","));
        assert_eq!(users(&many(1)), Ok(1));
        assert_eq!(users(&format!("users=x,{id},,%00,{id},")), Ok(2));
        assert_eq!(users(&many(ASKED)), Ok(ASKED));
        for wrong in
            [many(ASKED + 1), String::new(), "users=".into(), "users=,,".into(), "users=a&users=b".into()]
        {
            assert_eq!(users(&wrong), Err("users".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_query_is_named() {
        for (query, param) in [
            ("page=0", "page"),
            ("page=-1", "page"),
            ("page=%2B1", "page"),
            ("page=1.5", "page"),
            ("page=", "page"),
            ("page=1&page=2", "page"),
            ("perPage=0", "perPage"),
            ("perPage=101", "perPage"),
            ("before=0", "before"),
            ("before=x", "before"),
            ("after=%00", "after"),
            ("before=5&after=2", "after"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("before=5&page=1", "page"),
        ] {
            assert_eq!(which(query), Err(param.to_owned()), "{query}");
        }
    }
}
