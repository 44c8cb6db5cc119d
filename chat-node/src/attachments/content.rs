//! What an uploaded file is, by its first bytes, and what it is called. What a client says of either is not believed.

use common::model::MessageKind;

/// How many of a file's first bytes are looked at.
pub(super) const HEAD: usize = 8 * 1024;

/// Characters of a name; file systems have 255 bytes at most.
const NAME_CHARS: usize = 150;

/// What browsers may show in place: nothing of it runs scripts. The rest is for saving.
const SHOWN: [&str; 20] = [
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "image/bmp",
    "image/heif",
    "image/jxl",
    "video/mp4",
    "video/x-m4v",
    "video/webm",
    "video/quicktime",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/m4a",
    "audio/aac",
    "audio/amr",
    "audio/x-wav",
    "audio/x-flac",
];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: MessageKind,
    pub(super) media_type: &'static str,
}

impl Content {
    /// By the first bytes of it; all of it when it has fewer than [`HEAD`].
    pub(super) fn of(head: &[u8]) -> Self {
        use infer::MatcherType;

        match infer::get(head) {
            Some(found) => Self {
                kind: match found.matcher_type() {
                    MatcherType::Image => MessageKind::Image,
                    MatcherType::Video => MessageKind::Video,
                    MatcherType::Audio => MessageKind::Audio,
                    _ => MessageKind::File,
                },
                media_type: found.mime_type(),
            },
            None if is_text(head) => Self { kind: MessageKind::File, media_type: "text/plain" },
            None => Self { kind: MessageKind::File, media_type: "application/octet-stream" },
        }
    }

    /// Whether this is what a client says that it is: of a picture, a film or a sound, that it is one. Of anything else nothing is known by
    /// its client's word.
    pub(super) fn is(self, declared: &str) -> bool {
        let kind = match declared.trim_start().split('/').next().map(str::to_ascii_lowercase).as_deref() {
            Some("image") => MessageKind::Image,
            Some("video") => MessageKind::Video,
            Some("audio") => MessageKind::Audio,
            _ => return true,
        };
        // One container holds both.
        let heard = |kind| matches!(kind, MessageKind::Video | MessageKind::Audio);
        self.kind == kind || (heard(self.kind) && heard(kind))
    }
}

/// UTF-8, maybe cut off within a character, without control characters but those of lines.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Whether `media_type` is one of `patterns`: `image/png`, `image/*`, `*/*`.
pub(super) fn matches(patterns: &[String], media_type: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix("/*") {
        Some("*") => true,
        Some(class) => media_type.split('/').next() == Some(class),
        None => pattern == media_type,
    })
}

/// Whether this could be one of the patterns of [`matches()`].
pub(super) fn is_pattern(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-+.".contains(&byte))
    };
    match text.split_once('/') {
        Some(("*", "*")) => true,
        Some((class, "*")) => part(class),
        Some((class, one)) => part(class) && part(one),
        None => false,
    }
}

/// The type that a file is served with, and whether it is shown in place. What browsers would run, or read as a page, is served as bytes.
pub(super) fn served(media_type: &str) -> (&str, bool) {
    match media_type {
        "text/plain" => ("text/plain; charset=utf-8", false),
        _ if SHOWN.contains(&media_type) => (media_type, true),
        _ if media_type.starts_with("text/") || media_type == "application/x-shockwave-flash" => {
            ("application/octet-stream", false)
        }
        _ => (media_type, false),
    }
}

/// The part of a name that names a file and nothing else: no folder, no control or direction characters, no spaces or dots at its ends.
/// None when nothing is left.
pub(super) fn name(given: &str) -> Option<String> {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    // Zero-width and direction characters: with them `exe.png` may be read where `gnp.exe` stands.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let kept: String = last.chars().filter(|c| !hidden(*c)).collect();
    let trimmed = kept.trim_matches(|c: char| c.is_whitespace() || c == '.');
    let count = trimmed.chars().count();
    let short: String = match trimmed.rsplit_once('.') {
        // The ending stays.
        Some((stem, ending)) if count > NAME_CHARS && ending.chars().count() <= 10 => {
            let left = NAME_CHARS.saturating_sub(ending.chars().count() + 1);
            format!("{}.{ending}", stem.chars().take(left).collect::<String>())
        }
        _ => trimmed.chars().take(NAME_CHARS).collect(),
    };
    Some(short).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn me_7_a_file_is_what_its_first_bytes_say() {
        for (head, kind, media_type) in [
            (&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], MessageKind::Image, "image/png"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", MessageKind::Image, "image/jpeg"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", MessageKind::Video, "video/mp4"),
            (b"ID3\x04\0\0\0\0", MessageKind::Audio, "audio/mpeg"),
            (b"%PDF-1.7\n", MessageKind::File, "application/pdf"),
            (b"<!DOCTYPE html><script>alert(1)</script>", MessageKind::File, "text/html"),
            (b"plain words\n", MessageKind::File, "text/plain"),
            ("gr\u{fc}n".as_bytes(), MessageKind::File, "text/plain"),
            (b"gr\xc3", MessageKind::File, "text/plain"),
            (b"\x01\x02\xfe", MessageKind::File, "application/octet-stream"),
            (b"a\0b", MessageKind::File, "application/octet-stream"),
            (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", MessageKind::File, "text/plain"),
        ] {
            let found = Content::of(head);
            assert_eq!((found.kind, found.media_type), (kind, media_type), "{head:?}");
        }
    }

    #[test]
    fn me_7_no_first_bytes_make_it_fall() {
        // Every signature of one byte or two, alone and before others.
        for first in 0..=u8::MAX {
            for second in [0, 1, 0x1b, 0x45, 0xff] {
                for length in 0..40 {
                    let mut head = vec![first, second];
                    head.resize(length, first);
                    let _ = Content::of(&head);
                }
            }
        }
    }

    #[test]
    fn me_7_who_calls_a_program_a_picture_is_not_believed() {
        let program = Content::of(b"MZ\x90\0\x03\0\0\0");
        assert!(!program.is("image/png") && !program.is(" Video/mp4") && program.is("application/pdf"));
        let picture = Content::of(b"GIF89a");
        assert!(picture.is("image/png") && !picture.is("audio/mpeg") && picture.is(""));
    }

    #[test]
    fn me_7_what_a_browser_would_run_is_served_as_bytes_to_be_saved() {
        for active in ["text/html", "text/xml", "text/x-shellscript", "application/x-shockwave-flash"] {
            assert_eq!(served(active), ("application/octet-stream", false));
        }
        assert_eq!(served("image/png"), ("image/png", true));
        assert_eq!(served("application/pdf"), ("application/pdf", false));
        assert_eq!(served("image/vnd.djvu"), ("image/vnd.djvu", false));
        assert_eq!(served("text/plain"), ("text/plain; charset=utf-8", false));
    }

    #[test]
    fn me_7_types_are_matched_by_class_and_exactly() {
        let patterns = ["image/*".to_owned(), "application/pdf".to_owned()];
        for (media_type, expected) in [
            ("image/png", true),
            ("application/pdf", true),
            ("application/zip", false),
            ("imagex/png", false),
        ] {
            assert_eq!(matches(&patterns, media_type), expected, "{media_type}");
        }
        assert!(matches(&["*/*".into()], "a/b"));
        for good in ["*/*", "image/*", "application/vnd.ms-excel"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "image", "*", "*/png", "image/", "/png", "Image/png", "image/png;q=1", "a/b/c"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn me_7_a_name_names_a_file_and_nothing_else() {
        for (given, expected) in [
            ("holiday.jpg", Some("holiday.jpg")),
            ("../../etc/passwd", Some("passwd")),
            ("..\\..\\boot.ini", Some("boot.ini")),
            ("/", None),
            ("..", None),
            (" . ", None),
            ("", None),
            ("a\0b\r\nc.png", Some("abc.png")),
            ("photo\u{202e}gnp.exe", Some("photognp.exe")),
            (".hidden", Some("hidden")),
            ("Grüße 🌍.txt", Some("Grüße 🌍.txt")),
        ] {
            assert_eq!(name(given).as_deref(), expected, "{given:?}");
        }
        let long = name(&format!("{}.jpeg", "é".repeat(100_000))).unwrap();
        assert!(long.ends_with("é.jpeg") && long.chars().count() == NAME_CHARS);
        assert_eq!(name(&"x".repeat(100_000)).unwrap().len(), NAME_CHARS);
    }
}
