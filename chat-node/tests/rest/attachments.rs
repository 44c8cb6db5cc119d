use std::{convert::Infallible, io::Cursor, path::Path, sync::Arc, task::Poll, time::Duration};

use axum::body::{Body, Bytes};
use common::{ids::AppId, time::Millis};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::{
    webhooks::operator,
    world::{MAX_UPLOAD, Person, Reply, World, request},
};

const PATH: &str = "/api/v1/attachments";

fn picture() -> Vec<u8> {
    let picture = RgbImage::from_fn(640, 320, |x, y| Rgb([x as u8, y as u8, 7]));
    let mut bytes = Vec::new();
    DynamicImage::ImageRgb8(picture).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes
}

async fn upload(world: &World, who: &Person, query: &str, bytes: impl Into<Body>) -> Reply {
    let request = request(Some(who), Method::POST, &format!("{PATH}{query}"));
    world.raw(request.body(bytes.into()).unwrap()).await
}

/// Something that was uploaded; its id.
async fn uploaded(world: &World, who: &Person, bytes: &[u8]) -> String {
    let answer = upload(world, who, "", bytes.to_vec()).await.expect(201);
    answer["id"].as_str().unwrap().to_owned()
}

struct Download {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

async fn fetch(world: &World, who: &Person, method: Method, path: &str, more: &[(&str, &str)]) -> Download {
    let mut request = request(Some(who), method, &format!("{PATH}/{path}"));
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Download { status: parts.status, headers: parts.headers, bytes: body.collect().await.unwrap().to_bytes() }
}

async fn status(world: &World, who: &Person, path: &str) -> u16 {
    fetch(world, who, Method::GET, path, &[]).await.status.as_u16()
}

/// How many files there are in the folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

async fn nothing_is_left(world: &World) {
    assert_eq!(files(&world.files), 0);
    assert!(world.store.loose_objects(Millis(i64::MAX), 10).await.unwrap().is_empty());
    assert_eq!(world.store.drop_unused(Millis(i64::MAX), Millis::now(), 10).await.unwrap(), 0);
}

#[tokio::test]
async fn me_7_a_file_comes_back_as_it_was_with_safe_headers_whole_and_in_parts() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let bytes = picture();
    let answer = upload(&world, &ana, "?name=..%2F..%2Fgr%C3%BCn.png", bytes.clone()).await.expect(201);
    let expected = json!({
        "id": answer["id"], "kind": "image", "type": "image/png", "size": bytes.len(), "name": "grün.png",
        "created_at": answer["created_at"], "thumbnail": true,
    });
    assert_eq!(answer, expected);
    let id = answer["id"].as_str().unwrap();
    let got = fetch(&world, &ana, Method::GET, id, &[]).await;
    assert_eq!((got.status.as_u16(), got.bytes.as_ref() == bytes), (200, true));
    for (name, value) in [
        ("content-type", "image/png"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("content-disposition", "inline; filename=\"gr_n.png\"; filename*=UTF-8''gr%C3%BCn.png"),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("content-length", &bytes.len().to_string()),
    ] {
        assert_eq!(got.headers[name], value, "{name}");
    }
    let head = fetch(&world, &ana, Method::HEAD, id, &[]).await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    assert_eq!(head.headers["content-length"], bytes.len().to_string());

    let part = fetch(&world, &ana, Method::GET, id, &[("range", "bytes=10-19")]).await;
    assert_eq!((part.status.as_u16(), part.bytes.as_ref()), (206, &bytes[10..20]));
    assert_eq!(part.headers["content-range"], format!("bytes 10-19/{}", bytes.len()));
    assert_eq!(part.headers["content-length"], "10");
    let end = fetch(&world, &ana, Method::GET, id, &[("range", "bytes=-5")]).await;
    assert_eq!((end.status.as_u16(), end.bytes.as_ref()), (206, &bytes[bytes.len() - 5..]));
    let past = fetch(&world, &ana, Method::GET, id, &[("range", "bytes=9999999-")]).await;
    assert_eq!((past.status.as_u16(), past.bytes.len()), (416, 0));
    assert_eq!(past.headers["content-range"], format!("bytes */{}", bytes.len()));

    let tag = got.headers[header::ETAG].to_str().unwrap();
    assert_eq!(fetch(&world, &ana, Method::GET, id, &[("if-none-match", tag)]).await.status, 304);
    let stale = [("range", "bytes=0-0"), ("if-range", "\"other\"")];
    assert_eq!(fetch(&world, &ana, Method::GET, id, &stale).await.status, 200);
}

#[tokio::test]
async fn me_7_a_picture_has_a_thumbnail_and_nothing_else_has() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let id = uploaded(&world, &ana, &picture()).await;
    for _ in 0..2 {
        let small = fetch(&world, &ana, Method::GET, &format!("{id}/thumbnail"), &[]).await;
        assert_eq!(
            (small.status.as_u16(), &small.headers["content-type"]),
            (200, &"image/jpeg".parse().unwrap())
        );
        let read = image::load_from_memory(&small.bytes).unwrap();
        assert_eq!((read.width(), read.height()), (320, 160));
        assert_eq!(small.headers["x-content-type-options"], "nosniff");
    }
    assert_eq!(files(&world.files), 2, "it is kept");
    let words = uploaded(&world, &ana, b"words").await;
    assert_eq!(status(&world, &ana, &format!("{words}/thumbnail")).await, 404);
    // It begins like a picture.
    let broken = upload(&world, &ana, "", picture()[..100].to_vec()).await.expect(201);
    assert_eq!(broken["thumbnail"], true);
    for _ in 0..2 {
        assert_eq!(status(&world, &ana, &format!("{}/thumbnail", broken["id"].as_str().unwrap())).await, 404);
    }
}

#[tokio::test]
async fn me_11_a_message_sent_through_applications_has_its_senders_attachments() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let chat = world.group(&[&ana, &ben]).await;
    let number = world.get(&ana, &chat).await.expect(200)["number"].clone();
    for word in ["messages", "message"] {
        let path = format!("/api/v1/applications/{}/chats/{number}/{word}", AppId::DEFAULT);
        let id = uploaded(&world, &ana, &picture()).await;
        assert_eq!(status(&world, &ben, &id).await, 404);
        let own = json!({"body": "", "type": "image", "attachments": [id]});
        let sent = world.post(&ana, &path, own).await.expect(201);
        assert_eq!((&sent["attachments"], &sent["kind"]), (&json!([id]), &json!("image")));
        assert_eq!(status(&world, &ben, &id).await, 200);

        // The operator sends as somebody what they have uploaded, and nothing else.
        let of_ana = uploaded(&world, &ana, b"words").await;
        let as_ana = json!({"body": "look", "from": ana.id, "attachments": [of_ana]});
        let sent = operator(&world, Method::POST, &path, as_ana.clone()).await.expect(201);
        assert_eq!((&sent["attachments"], &sent["from"]), (&json!([of_ana]), &json!(ana.id)));
        let of_ben = uploaded(&world, &ben, b"words").await;
        for other in [json!({"from": ana.id}), json!({})] {
            let mut body = as_ana.clone();
            body["attachments"] = json!([of_ben]);
            body["from"] = other["from"].clone();
            let refused = operator(&world, Method::POST, &path, body).await.refused(400, "invalid");
            assert_eq!(refused["errors"][0]["param"], "attachments[0]");
        }
        assert_eq!(status(&world, &ana, &of_ben).await, 404);
    }
}

#[tokio::test]
async fn me_5_a_caption_is_taken_away_by_an_edit() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    let id = uploaded(&world, &ana, &picture()).await;
    let body = json!({"body": "the sea", "type": "image", "attachments": [id]});
    world.post(&ana, &format!("{chat}/messages"), body).await.expect(201);
    let edited = world.put(&ana, &format!("{chat}/messages/1"), json!({"body": ""})).await.expect(200);
    assert_eq!((&edited["body"], &edited["attachments"]), (&json!(""), &json!([id])));
}

#[tokio::test]
async fn me_7_a_name_from_a_client_is_a_name_and_no_path() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let huge = format!("?name={}", "x".repeat(10_000));
    for (query, expected) in [
        ("", Value::Null),
        ("?name=", Value::Null),
        ("?name=..%2F..%2Fx", json!("x")),
        ("?name=%2Fetc%2Fpasswd", json!("passwd")),
        ("?name=a%00b.txt", json!("ab.txt")),
        ("?name=a%0D%0Ax-evil:%201", json!("ax-evil: 1")),
        ("?name=%22;%20filename=%22evil.exe", json!("\"; filename=\"evil.exe")),
        (&huge, json!("x".repeat(150))),
    ] {
        let answer = upload(&world, &ana, query, "words").await.expect(201);
        assert_eq!(answer["name"], expected, "{query}");
        let got = fetch(&world, &ana, Method::GET, answer["id"].as_str().unwrap(), &[]).await;
        let disposition = got.headers["content-disposition"].to_str().unwrap();
        assert!(disposition.starts_with("attachment") && disposition.matches("filename=").count() <= 2);
        assert!(!got.headers.contains_key("x-evil"));
    }
}

#[tokio::test]
async fn me_7_a_file_is_what_it_holds_whatever_is_said_of_it() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let said = async |media_type: &str, bytes: &[u8]| {
        let request = request(Some(&ana), Method::POST, PATH).header("content-type", media_type);
        world.raw(request.body(bytes.to_vec().into()).unwrap()).await
    };
    let program = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";
    for media_type in ["image/png", "application/octet-stream", "text/plain"] {
        let problem = said(media_type, program).await.refused(400, "invalid");
        assert_eq!(
            (&problem["errors"][0]["location"], &problem["errors"][0]["param"]),
            (&json!("headers"), &json!("Content-Type"))
        );
    }
    said("image/png", b"<script>alert(1)</script>").await.refused(400, "invalid");
    said("audio/ogg", &picture()).await.refused(400, "invalid");
    said("", b"").await.refused(400, "invalid");
    nothing_is_left(&world).await;

    let page = said("text/html", b"<!DOCTYPE html><script>alert(1)</script>").await.expect(201);
    assert_eq!((&page["kind"], &page["type"]), (&json!("file"), &json!("text/html")));
    let got = fetch(&world, &ana, Method::GET, page["id"].as_str().unwrap(), &[]).await;
    assert_eq!(got.headers["content-type"], "application/octet-stream");
    assert_eq!(got.headers["content-disposition"], "attachment");
    let picture = said("image/jpeg", &picture()).await.expect(201);
    assert_eq!(picture["type"], "image/png", "one picture for another is no matter");
}

#[tokio::test]
async fn me_7_a_file_that_is_too_long_is_refused_whether_it_says_so_or_not_and_leaves_nothing() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    upload(&world, &ana, "", vec![b'x'; MAX_UPLOAD + 1]).await.refused(413, "too_large");
    let pieces = (0..MAX_UPLOAD / 1_000 + 2).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1_000])));
    upload(&world, &ana, "", Body::from_stream(stream::iter(pieces))).await.refused(413, "too_large");
    let lies = request(Some(&ana), Method::POST, PATH).header("content-length", "999999999999");
    world.raw(lies.body("x".into()).unwrap()).await.refused(413, "too_large");
    nothing_is_left(&world).await;
    let answer = upload(&world, &ana, "", vec![b'x'; MAX_UPLOAD]).await.expect(201);
    assert_eq!(answer["size"], MAX_UPLOAD);
}

#[tokio::test]
async fn me_7_an_upload_that_is_cut_off_leaves_nothing() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    for pieces in [0, 1, 300] {
        let good = (0..pieces).map(|_| Ok(Bytes::from(vec![b'x'; 1_000])));
        let cut = std::iter::once(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        let body = Body::from_stream(stream::iter(good.chain(cut).collect::<Vec<_>>()));
        upload(&world, &ana, "", body).await.refused(400, "invalid");
        nothing_is_left(&world).await;
    }
    // A client that is gone: its request is dropped where it stands. What it began is known as nobody's, until the sweep.
    let head = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; 20_000]))]);
    let body = Body::from_stream(head.chain(stream::pending()));
    let _ = tokio::time::timeout(Duration::from_millis(200), upload(&world, &ana, "", body)).await;
    assert_eq!(files(&world.files), 0);
    assert_eq!(world.store.loose_objects(Millis(i64::MAX), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn me_7_the_same_key_is_the_same_upload_and_another_file_under_it_a_conflict() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let keyed = async |who: &Person, bytes: &'static str| {
        let request = request(Some(who), Method::POST, PATH).header("idempotency-key", "k");
        world.raw(request.body(bytes.into()).unwrap()).await
    };
    let first = keyed(&ana, "words").await.expect(201);
    assert_eq!(keyed(&ana, "words").await.expect(200), first);
    keyed(&ana, "other words").await.refused(409, "id_conflict");
    assert_ne!(keyed(&ben, "words").await.expect(201)["id"], first["id"]);
    assert_eq!(files(&world.files), 2);
}

#[tokio::test]
async fn me_7_a_message_refers_to_its_senders_uploads_and_members_read_them() {
    let world = World::new().await;
    let (ana, ben, cleo) = (world.person("ana").await, world.person("ben").await, world.person("cleo").await);
    let chat = world.group(&[&ana, &ben]).await;
    let (mine, his) = (uploaded(&world, &ana, &picture()).await, uploaded(&world, &ben, &picture()).await);
    let words = uploaded(&world, &ana, b"words").await;
    let send = async |who: &Person, kind: &str, ids: Value| {
        let body = json!({"body": "", "type": kind, "attachments": ids});
        world.post(who, &format!("{chat}/messages"), body).await
    };
    for (ids, wrong) in [
        (json!([mine, his]), "attachments[1]"),
        (json!(["a1"]), "attachments[0]"),
        (json!([AppId::DEFAULT]), "attachments[0]"),
        (json!([mine, mine]), "attachments[1]"),
        (json!([mine, words]), "kind"),
    ] {
        let problem = send(&ana, "photo", ids).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["param"], wrong);
    }
    send(&ana, "video", json!([mine])).await.refused(400, "invalid");
    send(&ana, "photo", json!([])).await.refused(400, "invalid");
    send(&cleo, "file", json!([])).await.refused(400, "invalid");
    let stranger = uploaded(&world, &cleo, &picture()).await;
    send(&cleo, "photo", json!([stranger])).await.refused(404, "not_found");
    for who in [&ana, &ben] {
        assert_eq!(status(&world, who, &stranger).await, 404);
    }

    // Readable before the store has the message, and by members only.
    world.owner.drain(false).await;
    let again = uploaded(&world, &ana, &picture()).await;
    let sent = send(&ana, "photo", json!([again])).await.expect(201);
    assert_eq!(sent["attachments"], json!([again]));
    for path in [again.clone(), format!("{again}/thumbnail")] {
        assert_eq!(status(&world, &ben, &path).await, 200);
        assert_eq!(status(&world, &cleo, &path).await, 404);
    }
    world.owner.drain(true).await;
    assert_eq!((status(&world, &ben, &again).await, status(&world, &cleo, &again).await), (200, 404));
    assert_eq!(status(&world, &ben, "x").await, 404);
    let nobody = world.call(None, Method::GET, &format!("{PATH}/{again}"), Value::Null).await;
    nobody.refused(401, "unauthenticated");
    world.call(None, Method::POST, PATH, json!({})).await.refused(401, "unauthenticated");
    world.delete(&ana, &format!("{PATH}/{again}")).await.refused(405, "method_not_allowed");
    world.get(&ana, PATH).await.refused(405, "method_not_allowed");

    world.delete(&ana, &format!("{chat}/messages/{}", sent["number"])).await.expect(204);
    assert_eq!((status(&world, &ben, &again).await, status(&world, &ana, &again).await), (404, 200));
}

#[tokio::test]
async fn me_7_ones_own_upload_may_be_ones_profile_picture_which_everybody_sees() {
    let world = World::new().await;
    let (ana, ben) = (world.person("ana").await, world.person("ben").await);
    let (mine, words) = (uploaded(&world, &ana, &picture()).await, uploaded(&world, &ana, b"words").await);
    let shows = async |who: &Person, avatar: &str| {
        world.patch(who, "/api/v1/users/me", json!({"avatar": avatar})).await
    };
    for (who, avatar) in [(&ana, words.as_str()), (&ben, &mine), (&ana, &AppId::DEFAULT.to_string())] {
        let problem = shows(who, avatar).await.refused(400, "invalid");
        assert_eq!(problem["errors"][0]["param"], "avatar");
    }
    assert_eq!(status(&world, &ben, &mine).await, 404);
    let changed = shows(&ana, &mine.to_uppercase()).await.expect(200);
    assert_eq!(changed["avatar"], json!(mine));
    for path in [mine.clone(), format!("{mine}/thumbnail")] {
        assert_eq!(status(&world, &ben, &path).await, 200);
    }
    world.patch(&ana, "/api/v1/users/me", json!({"avatar": null})).await.expect(200);
    assert_eq!((status(&world, &ben, &mine).await, status(&world, &ana, &mine).await), (404, 200));
}

#[tokio::test]
async fn me_7_a_repeat_is_told_of_its_message_though_what_it_referred_to_is_gone() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let chat = world.group(&[&ana]).await;
    let id = uploaded(&world, &ana, b"words").await;
    let body = json!({"body": "look", "client_id": "c-1", "attachments": [id]});
    let path = format!("{chat}/messages");
    let sent = world.post(&ana, &path, body.clone()).await.expect(201);
    world.delete(&ana, &format!("{path}/1")).await.expect(204);
    let later = Millis::now().plus(Duration::from_secs(5));
    assert_eq!(world.store.drop_unused(later, later, 10).await.unwrap(), 1);
    assert_eq!(status(&world, &ana, &id).await, 404);
    assert_eq!(world.post(&ana, &path, body).await.expect(200)["id"], sent["id"]);
    let other = json!({"body": "look", "client_id": "c-2", "attachments": [id]});
    world.post(&ana, &path, other).await.refused(400, "invalid");
}

#[tokio::test]
async fn me_7_one_user_has_so_many_uploads_under_way_and_no_more() {
    let world = World::new().await;
    let ana = world.person("ana").await;
    let begun = Arc::new(Semaphore::new(0));
    let slow = |_| {
        let (router, ana, begun) = (world.router.clone(), ana.clone(), Arc::clone(&begun));
        tokio::spawn(async move {
            // Its bytes are asked for once it has its turn.
            let body = Body::from_stream(stream::poll_fn(move |_| {
                begun.add_permits(1);
                Poll::<Option<Result<Bytes, Infallible>>>::Pending
            }));
            let request = request(Some(&ana), Method::POST, PATH).body(body).unwrap();
            router.oneshot(request).await
        })
    };
    let under_way: Vec<_> = (0..4).map(slow).collect();
    let all = tokio::time::timeout(Duration::from_secs(10), begun.acquire_many(4)).await;
    all.expect("four are under way").unwrap().forget();
    upload(&world, &ana, "", "words").await.refused(429, "rate_limited");
    upload(&world, &world.person("ben").await, "", "words").await.expect(201);
    for upload in under_way {
        upload.abort();
        let _ = upload.await;
    }
    upload(&world, &ana, "", "words").await.expect(201);
}
