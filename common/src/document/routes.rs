//! Paths that are served and written down in one breath.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{MethodFilter, on},
};

use super::operation::{Inputs, Operation};
use crate::wire::codes::ErrorCode;

/// One method of one path, with what is written of it.
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) tag: &'static str,
    pub(super) operation: Operation,
}

/// A router whose every path is in the document.
pub struct Routes<S> {
    pub(super) router: Router<S>,
    pub(super) entries: Vec<Entry>,
    tag: &'static str,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Without paths. `tag` is the heading under which they will stand.
    pub fn new(tag: &'static str) -> Self {
        Self { router: Router::new(), entries: Vec::new(), tag }
    }

    /// Those of both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.entries.extend(other.entries);
        self
    }

    /// Serves `GET` (and `HEAD`).
    #[must_use]
    pub fn get<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        self.add(MethodFilter::GET, Method::GET, path, handler, operation)
    }

    /// Serves `POST`.
    #[must_use]
    pub fn post<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        self.add(MethodFilter::POST, Method::POST, path, handler, operation)
    }

    /// Serves `PUT`.
    #[must_use]
    pub fn put<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        self.add(MethodFilter::PUT, Method::PUT, path, handler, operation)
    }

    /// Serves `PATCH`.
    #[must_use]
    pub fn patch<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        self.add(MethodFilter::PATCH, Method::PATCH, path, handler, operation)
    }

    /// Serves `DELETE`.
    #[must_use]
    pub fn delete<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        self.add(MethodFilter::DELETE, Method::DELETE, path, handler, operation)
    }

    fn add<H, T>(
        mut self,
        filter: MethodFilter,
        method: Method,
        path: &str,
        handler: H,
        mut operation: Operation,
    ) -> Self
    where
        H: Handler<T, S>,
        T: Inputs + 'static,
    {
        T::describe(&mut operation);
        if !method.is_safe() {
            operation.may_refuse(&[ErrorCode::Unknown]);
        }
        self.router = self.router.route(path, on(filter, handler));
        self.entries.push(Entry { path: path.to_owned(), method, tag: self.tag, operation });
        self
    }
}
