//! The workloads that measure, against a server in memory: what they report is what was done.

use std::time::Duration;

use loadtest::{
    progress::Progress,
    workload::{
        chat::{self, ChatLoad, Kind},
        connect::{self, ConnectLoad},
    },
};

use crate::fake::{self, Fault};

fn load(url: String) -> ChatLoad {
    ChatLoad {
        url,
        users: 6,
        devices: 1,
        chats: 3,
        kind: Kind::Direct,
        group_size: 3,
        senders: 2,
        rate: 200.0,
        window: 4,
        duration: Duration::from_secs(1),
        warmup: Duration::from_millis(200),
        body_bytes: 100,
        server: None,
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_every_member_s_delivery_is_counted() {
    let url = fake::start(Fault::None, 0).await;
    let report = chat::run(&load(url), &Progress::quiet()).await.unwrap();
    println!("{report}");
    assert!((180.0..220.0).contains(&report.sends_per_second), "{report}");
    assert!((360.0..440.0).contains(&report.deliveries_per_second), "{report}");
    assert!(report.errors.is_empty() && report.gaps == 0, "{report}");
    assert_eq!((report.connections, report.server_cores), (6, None));
    assert!(report.delivery.p50_ms > 0.0 && report.ack.count >= 180);
}

#[tokio::test]
async fn as_fast_as_the_window_allows_is_faster_and_groups_deliver_to_all() {
    let url = fake::start(Fault::None, 0).await;
    let load = ChatLoad { rate: 0.0, kind: Kind::Group, ..load(url) };
    let report = chat::run(&load, &Progress::quiet()).await.unwrap();
    println!("{report}");
    assert!(report.sends_per_second > 300.0, "{report}");
    let each = report.deliveries_per_second / report.sends_per_second;
    assert!((2.5..3.5).contains(&each), "{report}");
}

#[tokio::test]
async fn trouble_is_counted_by_its_word_and_latency_counts_from_when_a_send_was_due() {
    let url = fake::start(Fault::RetryLater, 10).await;
    let report = chat::run(&load(url), &Progress::quiet()).await.unwrap();
    println!("{report}");
    assert!(report.errors["retry_later"] > 5, "{report}");
    assert!(report.ack.max_ms >= 50.0, "a retry waits 50 ms and more: {report}");
}

#[tokio::test]
async fn sessions_are_opened_and_counted_second_by_second() {
    let url = fake::start(Fault::None, 0).await;
    let load = ConnectLoad {
        url,
        users: 5,
        concurrency: 4,
        duration: Duration::from_secs(2),
        warmup: Duration::from_millis(100),
        server: None,
    };
    let report = connect::run(&load, &Progress::quiet()).await.unwrap();
    println!("{report}");
    assert_eq!(report.per_second.len(), 2);
    assert!(report.sessions_per_second > 20.0 && report.errors.is_empty(), "{report}");
    assert!(report.ready.count > 40);
}

#[tokio::test]
async fn what_cannot_be_set_up_is_said() {
    let url = fake::start(Fault::None, 0).await;
    let impossible = ChatLoad { chats: 100, ..load(url) };
    assert!(
        chat::run(&impossible, &Progress::quiet()).await.unwrap_err().to_string().contains("direct chats")
    );
    let tls = load("https://127.0.0.1:1".into());
    assert!(chat::run(&tls, &Progress::quiet()).await.unwrap_err().to_string().contains("TLS"));
}
