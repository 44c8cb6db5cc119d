//! What is counted of requests. Labels come from our own routes and a closed list of methods, so that a client cannot make new series.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of requests, on one registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    pending: IntGauge,
}

impl HttpMetrics {
    /// New ones, registered.
    ///
    /// # Errors
    /// When the registry has some already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("chat_http_requests_total", "REST requests that were answered"),
            &["route", "method", "status"],
        )?;
        let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("chat_http_request_seconds", "Time from request to answer").buckets(buckets),
            &["route", "method"],
        )?;
        let pending = IntGauge::new("chat_http_requests_pending", "REST requests being worked on")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(pending.clone()))?;
        Ok(Self { requests, seconds, pending })
    }

    /// A request has come in.
    pub(super) fn begin(&self, request: &Request) -> RequestSeen {
        let route = request.extensions().get::<MatchedPath>();
        self.pending.inc();
        RequestSeen {
            metrics: self.clone(),
            route: route.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned()),
            method: method(request.method()),
            since: Instant::now(),
        }
    }
}

/// A request that is being worked on; no longer when dropped.
pub(super) struct RequestSeen {
    metrics: HttpMetrics,
    route: String,
    method: &'static str,
    since: Instant,
}

impl RequestSeen {
    /// It was answered.
    pub(super) fn end(self, status: StatusCode) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.requests.with_label_values(&[&self.route, self.method, status.as_str()]).inc();
        self.metrics.seconds.with_label_values(&[self.route.as_str(), self.method]).observe(seconds);
    }
}

impl Drop for RequestSeen {
    fn drop(&mut self) {
        self.metrics.pending.dec();
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
