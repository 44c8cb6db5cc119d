//! Against servers on this machine, which are inside: whoever is not allowed is not reached.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A server that answers every request with this, and tells what it was sent.
async fn server(address: &str, answer: impl Into<String>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel(16);
    let answer = answer.into();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (tell, answer) = (tell.clone(), answer.clone());
            tokio::spawn(async move {
                let (mut heard, mut some) = (Vec::new(), [0; 4096]);
                while !heard.ends_with(b"the end") {
                    match socket.read(&mut some).await.unwrap_or(0) {
                        0 => return,
                        n => heard.extend_from_slice(&some[..n]),
                    }
                }
                // Not every test listens.
                let _ = tell.try_send(String::from_utf8(heard).unwrap());
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    (port, told)
}

const OK: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

fn moved(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn allowing(networks: &[&str]) -> Http {
    Http::new(Networks::parse(networks).unwrap()).unwrap()
}

fn to(url: impl Into<String>) -> Post {
    let headers = vec![("webhook-id", "one".to_owned())];
    Post { url: url.into(), headers, body: Bytes::from_static(b"the end"), push: false }
}

async fn refused(http: &Http, post: Post) -> String {
    timeout(SOON, http.post(post, Millis(0))).await.unwrap().unwrap_err().0
}

fn taken(status: u16) -> Result<Answer, Failed> {
    Ok(Answer { status, retry_after: None })
}

#[tokio::test]
async fn no_3_what_is_allowed_is_reached_by_address_and_by_name() {
    let (port, mut told) = server("127.0.0.1", OK).await;
    let http = allowing(&["127.0.0.1"]);
    for host in ["127.0.0.1", "localhost", "0x7f.1", "2130706433"] {
        let answer = http.post(to(format!("http://{host}:{port}/hook?x=1")), Millis(0)).await;
        assert_eq!(answer, taken(204), "{host}");
        let heard = told.recv().await.unwrap().to_lowercase();
        assert!(heard.starts_with("post /hook?x=1 http/1.1\r\n"), "{heard}");
        assert!(heard.contains("webhook-id: one\r\n") && heard.ends_with("\r\n\r\nthe end"), "{heard}");
    }
}

#[tokio::test]
async fn no_3_an_address_inside_is_not_reached_however_it_is_written() {
    let (port, mut told) = server("127.0.0.1", OK).await;
    let http = allowing(&[]);
    let hosts = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "192.168.1.1",
        "100.100.100.200",
        "127.0.0.1.",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
    ];
    for host in hosts {
        for push in [false, true] {
            let post = Post { push, ..to(format!("https://{host}:{port}/")) };
            assert_eq!(refused(&http, post).await, INSIDE, "{host}");
        }
        assert_eq!(refused(&http, to(format!("http://{host}:{port}/"))).await, INSIDE, "{host}");
    }
    // One network is not another.
    let http = allowing(&["127.0.0.2", "10.0.0.0/8", "::2"]);
    assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/"))).await, INSIDE);
    assert_eq!(refused(&http, to(format!("http://localhost:{port}/"))).await, INSIDE);
    assert!(told.try_recv().is_err(), "nothing has arrived");
}

#[tokio::test]
async fn no_3_a_redirect_leads_nowhere_inside() {
    let (inside, mut told) = server("127.0.0.2", OK).await;
    let http = allowing(&["127.0.0.1"]);
    for target in [
        format!("http://127.0.0.2:{inside}/"),
        format!("//127.0.0.2:{inside}/"),
        "http://[::ffff:127.0.0.2]/".into(),
    ] {
        for status in [307, 308] {
            let (port, _told) = server("127.0.0.1", moved(status, &target)).await;
            assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/"))).await, INSIDE, "{target}");
        }
    }
    // A name that leads inside: allowed by its IPv4 address only.
    let (port, _told) = server("127.0.0.1", moved(307, &format!("http://localhost:{inside}/"))).await;
    let other =
        Http { allow: Arc::new(Networks::parse(["127.0.0.1"]).unwrap()), ..allowing(&["10.0.0.0/8"]) };
    assert_eq!(refused(&other, to(format!("http://127.0.0.1:{port}/"))).await, INSIDE);
    for (target, why) in
        [("ftp://127.0.0.1/", "neither http nor https"), ("file:///etc/passwd", "neither http nor https")]
    {
        let (port, _told) = server("127.0.0.1", moved(308, target)).await;
        assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/"))).await, why);
    }
    assert!(told.try_recv().is_err(), "nothing has arrived");
}

#[tokio::test]
async fn no_3_redirects_are_followed_with_all_that_was_sent_and_not_for_ever() {
    let http = allowing(&["127.0.0.1"]);
    let (end, mut told) = server("127.0.0.1", OK).await;
    let mut next = format!("http://127.0.0.1:{end}/end");
    for _ in 0..REDIRECTS {
        let (port, _told) = server("127.0.0.1", moved(307, &next)).await;
        next = format!("http://127.0.0.1:{port}/");
    }
    assert_eq!(http.post(to(&next), Millis(0)).await, taken(204));
    let heard = told.recv().await.unwrap();
    assert!(
        heard.starts_with("POST /end") && heard.contains("webhook-id: one") && heard.ends_with("the end"),
        "{heard}"
    );
    let (port, _told) = server("127.0.0.1", moved(307, &next)).await;
    assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/"))).await, "it redirects too often");
    let (port, _told) = server("127.0.0.1", moved(307, "http://[/")).await;
    assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/"))).await, "it redirects to nowhere");
    // Those that would lose what is sent are answers.
    for status in [301, 302, 303] {
        let (port, _told) = server("127.0.0.1", moved(status, &next)).await;
        assert_eq!(http.post(to(format!("http://127.0.0.1:{port}/")), Millis(0)).await, taken(status));
    }
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn no_3_a_push_is_sent_by_tls_only_and_does_not_follow() {
    let (end, mut told) = server("127.0.0.1", OK).await;
    let http = allowing(&["127.0.0.1"]);
    let push = |url: String| Post { push: true, ..to(url) };
    assert_eq!(refused(&http, push(format!("http://localhost:{end}/"))).await, "not https");
    assert_eq!(refused(&http, push("http://8.8.8.8/".into())).await, "not https");
    assert_eq!(http.post(push(format!("http://127.0.0.1:{end}/")), Millis(0)).await, taken(204), "allowed");
    told.recv().await.unwrap();
    let (port, _told) = server("127.0.0.1", moved(307, &format!("http://127.0.0.1:{end}/"))).await;
    assert_eq!(http.post(push(format!("http://127.0.0.1:{port}/")), Millis(0)).await, taken(307));
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn no_3_of_an_endless_answer_little_is_read_and_who_says_nothing_is_not_waited_for() {
    let http = allowing(&["127.0.0.1"]);
    let endless = format!(
        "HTTP/1.1 200 OK\r\nretry-after: 7\r\ncontent-length: 99999999\r\n\r\n{}",
        "x".repeat(ANSWER_BYTES + 1)
    );
    let (port, _told) = server("127.0.0.1", endless).await;
    let answer = timeout(SOON, http.post(to(format!("http://127.0.0.1:{port}/")), Millis(0))).await.unwrap();
    assert_eq!(answer, Ok(Answer { status: 200, retry_after: Some(Duration::from_secs(7)) }));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(refused(&http, to(format!("http://127.0.0.1:{port}/secret"))).await, "no answer in time");
    drop(listener);
    let why = refused(&http, to(format!("http://127.0.0.1:{port}/secret"))).await;
    assert!(why.contains("refused") && !why.contains("secret"), "{why}");
    for url in ["http://", "not a url", "mailto:a@b", "http://a b/"] {
        let why = refused(&http, to(url)).await;
        assert!(["its URL cannot be read", "neither http nor https"].contains(&why.as_str()), "{url}: {why}");
    }
    let why = refused(&http, to("http://does-not-exist.invalid/secret")).await;
    assert!(!why.contains("secret"), "{why}");
}

#[test]
fn no_3_how_long_to_wait_is_told_in_seconds_or_as_a_date() {
    let now = Millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
    assert_eq!(wait("120", now), Some(Duration::from_secs(120)));
    assert_eq!(wait(" 0 ", now), Some(Duration::ZERO));
    assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
    assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
    for nonsense in ["", "-1", "soon", "1.5", "1994-11-06"] {
        assert_eq!(wait(nonsense, now), None, "{nonsense}");
    }
}

#[test]
fn no_3_a_place_is_a_host_and_a_port() {
    let cases = [
        ("https://push.example/a", "push.example:443"),
        ("https://PUSH.example:443/b", "push.example:443"),
        ("http://push.example", "push.example:80"),
        ("http://127.0.0.1:8080/hook", "127.0.0.1:8080"),
        ("https://[::1]:1", "[::1]:1"),
        ("nowhere", ""),
    ];
    for (url, place) in cases {
        assert_eq!(host_and_port(url), place);
    }
}
