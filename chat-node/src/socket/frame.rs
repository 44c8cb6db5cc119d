//! WebSocket frames (RFC 6455), as a server reads and writes them. Pure: bytes in, frames out.
//!
//! A server's frames carry no mask, so an event's bytes, header included, are the same for all it goes to: it is framed once, and
//! written as it is. Absent on purpose: extensions (compression would need a frame for each recipient).

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use common::wire::{client::ServerFrame, codec::Format};

/// The longest header of a frame that is written: two bytes, and eight of length.
const HEADER: usize = 10;
/// Bytes in a control frame, at most.
const CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn of(byte: u8) -> Option<Self> {
        [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong]
            .into_iter()
            .find(|opcode| *opcode as u8 == byte)
    }
}

/// A server's frame, ready to be written.
pub(crate) fn framed(frame: &ServerFrame, format: Format) -> Bytes {
    // The header's length is known when the payload's is: it is put in front of it, where room was left.
    let mut bytes = Vec::with_capacity(512);
    bytes.resize(HEADER, 0);
    format.encode(frame, &mut bytes);
    let opcode = match format {
        Format::Json => Opcode::Text,
        Format::MessagePack => Opcode::Binary,
    };
    let (header, length) = header(opcode, bytes.len() - HEADER);
    let start = HEADER - length;
    for (place, byte) in bytes.iter_mut().skip(start).zip(header.into_iter().take(length)) {
        *place = byte;
    }
    let mut bytes = Bytes::from(bytes);
    bytes.advance(start);
    bytes
}

/// One frame in each format, each made when somebody first needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    json: Option<Bytes>,
    message_pack: Option<Bytes>,
}

impl Frames {
    /// The frame in this format; `make` makes it.
    pub(crate) fn get(&mut self, format: Format, make: impl FnOnce() -> Bytes) -> Bytes {
        let frame = match format {
            Format::Json => &mut self.json,
            Format::MessagePack => &mut self.message_pack,
        };
        frame.get_or_insert_with(make).clone()
    }
}

/// A control frame, ready to be written; more payload than it may have is cut off.
pub(crate) fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let payload = payload.get(..CONTROL).unwrap_or(payload);
    let (header, length) = header(opcode, payload.len());
    header.into_iter().take(length).chain(payload.iter().copied()).collect()
}

/// A close frame, ready to be written.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// The header of a whole frame, and how many of its bytes count.
fn header(opcode: Opcode, payload: usize) -> ([u8; HEADER], usize) {
    let first = 0x80 | opcode as u8;
    let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (second, length) = match (u8::try_from(payload), u16::try_from(payload)) {
        (Ok(short), _) if short < 126 => (short, &[][..]),
        (_, Ok(medium)) => (126, &medium.to_be_bytes()[..]),
        _ => (127, &(payload as u64).to_be_bytes()[..]),
    };
    header[1] = second;
    for (place, byte) in header.iter_mut().skip(2).zip(length) {
        *place = *byte;
    }
    (header, 2 + length.len())
}

/// The end of the server's frame that the byte before `sent` belongs to: what has to follow so that no frame is torn. `frames` are whole
/// frames; at its start nothing has to follow.
pub(crate) fn torn(frames: &Bytes, sent: usize) -> Range<usize> {
    let mut end = 0;
    while end < sent {
        match length(frames.get(end..).unwrap_or_default()) {
            Some(frame) => end += frame,
            None => return sent..frames.len(),
        }
    }
    sent..end.min(frames.len())
}

/// The payload of each of a server's frames.
#[cfg(test)]
pub(crate) fn payloads(mut frames: Bytes) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    while let Some(length) = length(&frames) {
        let frame = frames.split_to(length);
        let header = Header::read(&frame).unwrap().unwrap();
        payloads.push(frame.slice(header.bytes..));
    }
    payloads
}

/// The length of the frame that begins here.
fn length(bytes: &[u8]) -> Option<usize> {
    let header = Header::read(bytes).ok()??;
    header.bytes.checked_add(usize::try_from(header.payload).ok()?)
}

/// A frame's header.
struct Header {
    last: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: u64,
    /// Its own length.
    bytes: usize,
}

impl Header {
    /// None while more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let reserved = first & 0x70 != 0;
        let opcode = Opcode::of(first & 0x0f).filter(|_| !reserved).ok_or(Broken::Protocol)?;
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            match rest.split_first_chunk() {
                Some((mask, rest)) => (Some(*mask), rest),
                None => return Ok(None),
            }
        };
        let header =
            Self { last: first & 0x80 != 0, opcode, mask, payload: length, bytes: bytes.len() - rest.len() };
        Ok(Some(header))
    }

    fn is_control(&self) -> bool {
        matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// The code, if there is one.
    Close(Option<u16>),
}

/// Why a client's bytes cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A message is longer than is read.
    TooLarge,
    /// It is no WebSocket's language, or no UTF-8.
    Protocol,
}

/// Reads a client's frames. Holds no memory between messages.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What has not been read yet.
    bytes: BytesMut,
    /// A message of which more fragments come.
    begun: Option<(Opcode, BytesMut)>,
    /// Bytes of a message, at most.
    most: usize,
}

impl Reader {
    /// For messages of at most so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self { bytes: BytesMut::new(), begun: None, most }
    }

    /// What came in.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; none while more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Broken> {
        while let Some((header, payload)) = self.frame()? {
            if let Some(message) = self.message(&header, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<(Header, BytesMut)>, Broken> {
        let Some(header) = Header::read(&self.bytes)? else { return Ok(None) };
        let begun = self.begun.as_ref().map_or(0, |(_, bytes)| bytes.len());
        let payload = usize::try_from(header.payload).map_err(|_| Broken::TooLarge)?;
        if header.is_control() {
            if !header.last || payload > CONTROL {
                return Err(Broken::Protocol);
            }
        } else if payload > self.most.saturating_sub(begun) {
            return Err(Broken::TooLarge);
        }
        // Clients mask, so that nothing between them and here takes their bytes for something else.
        let mask = header.mask.ok_or(Broken::Protocol)?;
        if self.bytes.len() - header.bytes < payload {
            return Ok(None);
        }
        self.bytes.advance(header.bytes);
        let mut payload = self.bytes.split_to(payload);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        for bytes in payload.chunks_mut(4) {
            for (byte, mask) in bytes.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        Ok(Some((header, payload)))
    }

    fn message(&mut self, header: &Header, payload: BytesMut) -> Result<Option<Message>, Broken> {
        let (opcode, whole) = match (header.opcode, self.begun.take()) {
            (Opcode::Text | Opcode::Binary, Some(_)) | (Opcode::Continuation, None) => {
                return Err(Broken::Protocol);
            }
            (Opcode::Continuation, Some((opcode, mut begun))) => {
                begun.extend_from_slice(&payload);
                (opcode, begun)
            }
            (Opcode::Text | Opcode::Binary, None) => (header.opcode, payload),
            // Between fragments as well.
            (Opcode::Ping, begun) => {
                self.begun = begun;
                return Ok(Some(Message::Ping(payload.freeze())));
            }
            (Opcode::Pong, begun) => {
                self.begun = begun;
                return Ok(Some(Message::Pong));
            }
            (Opcode::Close, _) => {
                return match *payload {
                    [] => Ok(Some(Message::Close(None))),
                    [high, low, ..] => Ok(Some(Message::Close(Some(u16::from_be_bytes([high, low]))))),
                    [_] => Err(Broken::Protocol),
                };
            }
        };
        if !header.last {
            self.begun = Some((opcode, whole));
            return Ok(None);
        }
        if opcode == Opcode::Binary {
            return Ok(Some(Message::Binary(whole.freeze())));
        }
        String::from_utf8(whole.into()).map(|text| Some(Message::Text(text))).map_err(|_| Broken::Protocol)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::{
        self, WebSocket,
        protocol::{Role, WebSocketConfig},
    };

    use super::*;

    /// What a client of another make writes.
    fn said(messages: &[tungstenite::Message]) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let config = WebSocketConfig::default();
        let mut client = WebSocket::from_raw_socket(&mut bytes, Role::Client, Some(config));
        for message in messages {
            client.send(message.clone()).unwrap();
        }
        bytes.into_inner()
    }

    fn read(reader: &mut Reader, bytes: &[u8], at_once: usize) -> Result<Vec<Message>, Broken> {
        let mut messages = Vec::new();
        for bytes in bytes.chunks(at_once) {
            reader.fill(bytes);
            while let Some(message) = reader.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4];
        frame.extend(payload.iter().zip([1u8, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn a_message_in_fragments_is_one_and_pings_may_come_between() {
        let bytes = [
            masked(0x01, "hé".as_bytes().split_at(2).0),
            masked(0x89, b"there?"),
            masked(0x00, "hé".as_bytes().split_at(2).1),
            masked(0x80, b"!"),
            masked(0x88, &[0x03, 0xe8, b'x']),
        ]
        .concat();
        let expected = [
            Message::Ping(Bytes::from_static(b"there?")),
            Message::Text("hé!".into()),
            Message::Close(Some(1000)),
        ];
        for at_once in 1..bytes.len() {
            assert_eq!(read(&mut Reader::new(100), &bytes, at_once).unwrap(), expected);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        for (bytes, why) in [
            (vec![0x81, 0x01, b'x'], Broken::Protocol),
            (masked(0xc1, b"x"), Broken::Protocol),
            (masked(0x83, b"x"), Broken::Protocol),
            (masked(0x80, b"x"), Broken::Protocol),
            (masked(0x09, b"x"), Broken::Protocol),
            (masked(0x88, b"x"), Broken::Protocol),
            (masked(0x81, b"\xff"), Broken::Protocol),
            ([masked(0x01, b"x"), masked(0x81, b"x")].concat(), Broken::Protocol),
            (vec![0x89, 0xfe, 0, 200, 1, 2, 3, 4], Broken::Protocol),
            (masked(0x82, &[0; 101]), Broken::TooLarge),
            ([masked(0x02, &[0; 60]), masked(0x80, &[0; 60])].concat(), Broken::TooLarge),
            ([vec![0x82], vec![0xff; 13]].concat(), Broken::TooLarge),
        ] {
            assert_eq!(read(&mut Reader::new(100), &bytes, 1_000), Err(why), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_torn_is_mended_with_the_rest_of_its_frame() {
        let (one, other) =
            (control(Opcode::Ping, &[7; 20]), framed(&ServerFrame::Pong { ref_: 1 }, Format::Json));
        let end = one.len() + other.len();
        let frames = Bytes::from([&one[..], &other[..]].concat());
        assert_eq!(torn(&frames, 0), 0..0);
        assert_eq!(torn(&frames, 1), 1..one.len());
        assert_eq!(torn(&frames, one.len()), one.len()..one.len());
        assert_eq!(torn(&frames, one.len() + 1), one.len() + 1..end);
        assert_eq!(torn(&frames, end), end..end);
    }

    proptest! {
        #[test]
        fn what_another_make_of_client_writes_is_read(
            messages in proptest::collection::vec(
                prop_oneof![
                    any::<String>().prop_map(tungstenite::Message::text),
                    proptest::collection::vec(any::<u8>(), 0..300).prop_map(tungstenite::Message::binary),
                    Just(tungstenite::Message::binary(vec![9; 70_000])),
                ],
                1..5,
            ),
            at_once in 1usize..5_000,
        ) {
            let expected: Vec<_> = messages.iter().map(|message| match message {
                tungstenite::Message::Text(text) => Message::Text(text.to_string()),
                other => Message::Binary(other.clone().into_data()),
            }).collect();
            let mut reader = Reader::new(100_000);
            prop_assert_eq!(read(&mut reader, &said(&messages), at_once).unwrap(), expected);
            prop_assert_eq!(reader.bytes.capacity(), 0);
        }

        #[test]
        fn what_is_written_is_read_by_another_make_of_client(lengths in proptest::collection::vec(0usize..70_000, 1..4)) {
            let mut bytes = Vec::new();
            for length in &lengths {
                let frame = ServerFrame::ChatUpdated {
                    chat: common::ids::ChatId::random(),
                    seq: 1,
                    at: common::time::Millis(0),
                    by: common::ids::UserId::random(),
                    name: Some("x".repeat(*length)),
                    description: None, retention: None,
                    roles: Vec::new(),
                };
                bytes.extend_from_slice(&framed(&frame, Format::Json));
            }
            bytes.extend_from_slice(&close(4004, "slow_consumer"));
            let mut stream = std::io::Cursor::new(bytes);
            let mut client = WebSocket::from_raw_socket(&mut stream, Role::Client, None);
            for length in lengths {
                let tungstenite::Message::Text(text) = client.read().unwrap() else { panic!("no text") };
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(frame["name"].as_str().unwrap().len(), length);
            }
            let tungstenite::Message::Close(Some(close)) = client.read().unwrap() else { panic!("no close") };
            prop_assert_eq!((u16::from(close.code), close.reason.as_str()), (4004, "slow_consumer"));
        }

        #[test]
        fn any_bytes_at_all_never_panic_and_never_fill_the_memory(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            at_once in 1usize..50,
        ) {
            let mut reader = Reader::new(64);
            let _ = read(&mut reader, &bytes, at_once);
            prop_assert!(reader.begun.is_none_or(|(_, begun)| begun.len() <= 64));
        }
    }
}
