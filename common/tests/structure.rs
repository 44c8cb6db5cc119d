//! Which crate may import which, and which file may name which engine: held by reading the workspace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fall"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The crates of the workspace: folder, and whether it may import the services.
const CRATES: [(&str, bool); 7] = [
    ("common", false),
    ("dispatcher", false),
    ("chat-node", false),
    ("storage-writer", false),
    ("loadtest", false),
    ("deploy/standalone", true),
    ("deploy/cluster", false),
];

const SERVICES: [&str; 3] = ["dispatcher", "chat-node", "storage-writer"];

/// Each outside engine, and the one file or folder that names it.
const ENGINES: [(&str, &[&str]); 13] = [
    (
        "sqlx",
        &[
            "common/src/log/sqlite",
            "common/src/store/postgres",
            "common/src/store/rows",
            "common/src/store/sqlite",
        ],
    ),
    // Its name is also the server's, the URL's and the module's: whoever starts it for tests, chooses or lists engines says so.
    (
        "redis",
        &["common/src/cache/redis", "common/src/cache/mod", "common/src/engines", "common/src/servers"],
    ),
    ("rdkafka", &["common/src/log/kafka"]),
    ("quinn", &["common/src/link"]),
    ("rustls", &["common/src/link"]),
    ("rcgen", &["common/src/link", "common/src/vapid"]),
    ("x509_parser", &["common/src/link"]),
    ("jsonwebtoken", &["common/src/token", "common/src/vapid"]),
    ("hmac", &["common/src/seal", "storage-writer/src/notify/webhook"]),
    ("hashring", &["common/src/ring"]),
    ("argon2", &["chat-node/src/passwords"]),
    ("object_store", &["chat-node/src/attachments/objects"]),
    ("infer", &["chat-node/src/attachments/content"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The names under one heading of a manifest.
fn listed(manifest: &str, heading: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            inside = name.trim_end_matches(']') == heading;
        } else if inside
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn services_import_common_and_never_each_other() {
    for (folder, may) in CRATES {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for heading in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in listed(&manifest, heading) {
                let is_service = SERVICES.contains(&name.as_str());
                assert!(may || !is_service, "{folder} lists {name} under [{heading}]");
            }
        }
    }
}

#[test]
fn every_crate_of_the_workspace_is_held_to_the_rules() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members")).unwrap();
    let named: Vec<_> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(named, CRATES.map(|(folder, _)| folder));
}

#[test]
fn each_outside_engine_is_named_in_one_place() {
    for (engine, places) in ENGINES {
        let mut named_at_home = false;
        for (folder, _) in CRATES {
            let mut files = Vec::new();
            sources(&root().join(folder).join("src"), &mut files);
            for file in files {
                let text = fs::read_to_string(&file).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let names = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
                let named = names.clone().any(|word| word == engine);
                let relative = file.strip_prefix(root()).unwrap().display().to_string();
                let home = places.iter().any(|place| {
                    relative == format!("{place}.rs") || relative.starts_with(&format!("{place}/"))
                });
                assert!(!named || home, "{relative} names {engine}, which belongs to {places:?}");
                named_at_home |= named && home;
            }
        }
        assert!(named_at_home, "{engine} is named nowhere: is the list out of date?");
    }
}

/// Where the public paths are served: what is registered there is in the document of the paths (OP-7).
const PATHS: [&str; 3] = ["chat-node/src/api", "dispatcher/src/http.rs", "dispatcher/src/docs"];

#[test]
fn op_7_paths_are_served_and_written_down_in_one_breath() {
    for place in PATHS {
        let (place, mut files) = (root().join(place), Vec::new());
        if place.is_dir() {
            sources(&place, &mut files)
        } else {
            files.push(place)
        }
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for by_hand in [".route(", ".nest(", ".route_service(", "Router::new("] {
                assert!(
                    !text.contains(by_hand),
                    "{} has {by_hand}…): a path registered by hand is not in the document. Register it in the `routes` of its area, \
                     by `Routes::get`, `post`, … of common::document, whose head shows how",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn no_file_has_grown_into_two() {
    for (folder, _) in CRATES {
        let mut files = Vec::new();
        sources(&root().join(folder).join("src"), &mut files);
        for file in files {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 800, "{} has {lines} lines", file.display());
        }
    }
}
