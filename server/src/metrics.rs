//! Metrics: every name in one list, with its meaning, so that none is undocumented.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Requests by route, method and status.
pub const REQUESTS: &str = "strongroom_http_requests_total";
/// How long requests took.
pub const REQUEST_SECONDS: &str = "strongroom_http_request_duration_seconds";
/// Refused credentials by kind.
pub const UNAUTHENTICATED: &str = "strongroom_unauthenticated_total";
/// Refusals by policy.
pub const DENIED: &str = "strongroom_denied_total";
/// Policies that failed to evaluate.
pub const EVALUATION_ERRORS: &str = "strongroom_policy_evaluation_errors_total";
/// Rows or values that are not what was written.
pub const INTEGRITY: &str = "strongroom_integrity_failures_total";
/// Whether the anchor cannot be written.
pub const ANCHOR_FAILING: &str = "strongroom_anchor_failing";
/// How full the anchor's place is.
pub const ANCHOR_FULLNESS: &str = "strongroom_anchor_fullness";
/// Audit events written.
pub const AUDIT_EVENTS: &str = "strongroom_audit_events_total";
/// Transactions that wrote them.
pub const AUDIT_COMMITS: &str = "strongroom_audit_commits_total";
/// Open watches.
pub const WATCHES: &str = "strongroom_watches";
/// Open connections.
pub const CONNECTIONS: &str = "strongroom_connections";
/// Database connections by state.
pub const DATABASE_CONNECTIONS: &str = "strongroom_database_connections";
/// Whether the root key's providers are well.
pub const ROOT_KEY_WELL: &str = "strongroom_root_key_provider_well";
/// Secrets near their expiry, and past it.
pub const EXPIRIES: &str = "strongroom_secret_expiries";

/// Every metric: name, type, meaning.
pub const ALL: &[(&str, &str, &str)] = &[
    (REQUESTS, "counter", "HTTP requests by route, method and status"),
    (REQUEST_SECONDS, "histogram", "Duration of HTTP requests by route, in seconds; watches are left out"),
    (UNAUTHENTICATED, "counter", "Refused credentials by kind"),
    (DENIED, "counter", "Requests refused by policy, by action"),
    (EVALUATION_ERRORS, "counter", "Policies that failed to evaluate; each is a denial, and a reason to look"),
    (INTEGRITY, "counter", "Rows or sealed values that are not what Strongroom wrote; each is a reason to wake up"),
    (
        ANCHOR_FAILING,
        "gauge",
        "1 while the anchor cannot be written or disagrees with the database, if only about one project: a rollback of the database would not be noticed",
    ),
    (
        ANCHOR_FULLNESS,
        "gauge",
        "How much of what its place takes the anchor fills, 0 to 1; what does not fit is not written. It grows by some 130 bytes a project",
    ),
    (AUDIT_EVENTS, "counter", "Audit events committed"),
    (AUDIT_COMMITS, "counter", "Transactions that committed groups of audit events"),
    (WATCHES, "gauge", "Open watches"),
    (CONNECTIONS, "gauge", "Open client connections"),
    (DATABASE_CONNECTIONS, "gauge", "Database connections by state"),
    (
        EXPIRIES,
        "gauge",
        "Secrets within their project's notice period (`soon`) and past their expiry (`expired`), by stage",
    ),
    (
        ROOT_KEY_WELL,
        "gauge",
        "Whether the root key's provider is well, 1 or 0, by provider (current or previous); without it a running server serves on, and none can start",
    ),
];

/// Installs the process's recorder, once, and gives its handle.
pub fn handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        // A recorder that is there already belongs to a program that embeds this one; its handle then stays empty.
        let _ = metrics::set_global_recorder(recorder);
        for (name, kind, meaning) in ALL {
            match *kind {
                "counter" => metrics::describe_counter!(*name, *meaning),
                "gauge" => metrics::describe_gauge!(*name, *meaning),
                _ => metrics::describe_histogram!(*name, *meaning),
            }
        }
        handle
    })
}
