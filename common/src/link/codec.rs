//! The bytes of a link's stream.
//!
//! Every frame is `kind: u8, len: u32, body: len bytes`, numbers big endian:
//!
//! | kind | body |
//! | --- | --- |
//! | 1 hello | `version: u16, incarnation: u64, epoch: u64, peer_epoch: u64, attempt: u64, received_upto: u64`, and what later versions add |
//! | 2 data | `no: u64`, then the payload |
//! | 3 ack | `upto: u64` |
//! | 4 gap | `first: u64, last: u64` |
//!
//! A length is checked against its kind's bound as soon as the five bytes before it are there; nothing is allocated for a frame that is
//! refused.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version that this code speaks. It stands in the hello and in the ALPN ([`ALPN`]).
pub const VERSION: u16 = 1;

/// What TLS must agree on before the first byte.
pub const ALPN: &[u8] = b"chat-link/1";

/// Bytes before a frame's body.
pub const HEADER: usize = 5;

const HELLO: u8 = 1;
const DATA: u8 = 2;
const ACK: u8 = 3;
const GAP: u8 = 4;

const HELLO_LEN: usize = 42;
/// Room for what later versions append.
const HELLO_MAX: usize = 256;
const NO_LEN: usize = 8;

/// Payloads up to here are copied out of the read buffer, so that a small frame that is kept does not keep a large buffer.
const COPY_UPTO: usize = 16 * 1024;

/// The first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub version: u16,
    /// The sender's process.
    pub incarnation: u64,
    /// Random; names the sender's half of the link's state. Who forgets the state draws another.
    pub epoch: u64,
    /// The receiver's epoch as the sender knows it; 0: it knows none.
    pub peer_epoch: u64,
    /// Counts the dialer's connections for this epoch, so that a late one does not displace its successor. A listener repeats it.
    pub attempt: u64,
    /// The sender has the receiver's frames up to here; 0: none of `peer_epoch`.
    pub received_upto: u64,
}

/// What travels on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFrame {
    /// The first frame in each direction.
    Hello(Hello),
    /// A frame of the user's.
    Data {
        /// Its number.
        no: u64,
        /// Opaque here.
        payload: Bytes,
    },
    /// All frames up to here have been received.
    Ack {
        /// Inclusive.
        upto: u64,
    },
    /// These numbers will never come.
    Gap {
        /// The first missing one.
        first: u64,
        /// The last missing one.
        last: u64,
    },
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No such kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Too short or too long for its kind.
    #[error("a frame of kind {kind} may not have {len} bytes")]
    Length {
        /// Its kind.
        kind: u8,
        /// Its body's length, as it says.
        len: usize,
    },
    /// A number that cannot be: zero, or a range that ends before it begins.
    #[error("impossible number in a frame of kind {0}")]
    Number(u8),
}

/// Appends a frame's bytes.
pub fn encode(frame: &StreamFrame, out: &mut BytesMut) {
    match frame {
        StreamFrame::Hello(hello) => {
            head(HELLO, HELLO_LEN, out);
            out.put_u16(hello.version);
            for number in
                [hello.incarnation, hello.epoch, hello.peer_epoch, hello.attempt, hello.received_upto]
            {
                out.put_u64(number);
            }
        }
        StreamFrame::Data { no, payload } => {
            encode_data_head(*no, payload.len(), out);
            out.put_slice(payload);
        }
        StreamFrame::Ack { upto } => {
            head(ACK, NO_LEN, out);
            out.put_u64(*upto);
        }
        StreamFrame::Gap { first, last } => {
            head(GAP, 2 * NO_LEN, out);
            out.put_u64(*first);
            out.put_u64(*last);
        }
    }
}

/// Appends what comes before a data frame's payload, for payloads that are written without a copy.
pub fn encode_data_head(no: u64, payload: usize, out: &mut BytesMut) {
    head(DATA, NO_LEN + payload, out);
    out.put_u64(no);
}

fn head(kind: u8, len: usize, out: &mut BytesMut) {
    out.put_u8(kind);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Takes the next frame off the front of `buf`; `None` when it is not all there yet (then `buf` is untouched).
///
/// # Errors
/// [`CodecError`]; the stream is then of no use any more.
pub fn decode(buf: &mut BytesMut, max_payload: usize) -> Result<Option<StreamFrame>, CodecError> {
    let Some((mut header, _)) = buf.split_at_checked(HEADER) else { return Ok(None) };
    let kind = header.get_u8();
    let len = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
    let allowed = match kind {
        HELLO => HELLO_LEN..=HELLO_MAX,
        DATA => NO_LEN..=NO_LEN.saturating_add(max_payload),
        ACK => NO_LEN..=NO_LEN,
        GAP => 2 * NO_LEN..=2 * NO_LEN,
        other => return Err(CodecError::Kind(other)),
    };
    if !allowed.contains(&len) {
        return Err(CodecError::Length { kind, len });
    }
    if buf.len() - HEADER < len {
        return Ok(None);
    }
    buf.advance(HEADER);
    let frame = match kind {
        HELLO => {
            let mut body = buf.split_to(len);
            StreamFrame::Hello(Hello {
                version: body.get_u16(),
                incarnation: body.get_u64(),
                epoch: body.get_u64(),
                peer_epoch: body.get_u64(),
                attempt: body.get_u64(),
                received_upto: body.get_u64(),
            })
        }
        DATA => {
            let no = buf.get_u64();
            let payload = payload(buf, len - NO_LEN);
            if no == 0 {
                return Err(CodecError::Number(kind));
            }
            StreamFrame::Data { no, payload }
        }
        ACK => StreamFrame::Ack { upto: buf.get_u64() },
        _ => {
            let (first, last) = (buf.get_u64(), buf.get_u64());
            if first == 0 || last < first {
                return Err(CodecError::Number(kind));
            }
            StreamFrame::Gap { first, last }
        }
    };
    Ok(Some(frame))
}

fn payload(buf: &mut BytesMut, len: usize) -> Bytes {
    if len > COPY_UPTO {
        return buf.split_to(len).freeze();
    }
    let copy = Bytes::copy_from_slice(buf.get(..len).unwrap_or_default());
    buf.advance(len);
    copy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(frame: &StreamFrame) -> BytesMut {
        let mut out = BytesMut::new();
        encode(frame, &mut out);
        out
    }

    #[test]
    fn the_bytes_of_each_frame_are_these() {
        let hello =
            Hello { version: 1, incarnation: 2, epoch: 3, peer_epoch: 4, attempt: 5, received_upto: 6 };
        let golden: [(StreamFrame, &[u8]); 4] = [
            (
                StreamFrame::Hello(hello),
                &[
                    1, 0, 0, 0, 42, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0,
                    0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6,
                ],
            ),
            (
                StreamFrame::Data { no: 0x0102, payload: Bytes::from_static(b"hi") },
                &[2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 1, 2, b'h', b'i'],
            ),
            (StreamFrame::Ack { upto: 9 }, &[3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9]),
            (
                StreamFrame::Gap { first: 7, last: 8 },
                &[4, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8],
            ),
        ];
        for (frame, bytes) in golden {
            assert_eq!(bytes_of(&frame).as_ref(), bytes, "{frame:?}");
            let mut buf = BytesMut::from(bytes);
            assert_eq!(decode(&mut buf, 100), Ok(Some(frame)));
            assert!(buf.is_empty());
        }
    }

    #[test]
    fn an_oversize_length_is_refused_from_the_header_alone() {
        let mut data = BytesMut::from(&[DATA, 0, 0, 0, 8 + 101][..]);
        assert_eq!(decode(&mut data, 100), Err(CodecError::Length { kind: DATA, len: 109 }));
        let mut huge = BytesMut::from(&[DATA, 255, 255, 255, 255][..]);
        assert_eq!(decode(&mut huge, 100), Err(CodecError::Length { kind: DATA, len: u32::MAX as usize }));
        let mut ack = BytesMut::from(&[ACK, 0, 0, 0, 9][..]);
        assert_eq!(decode(&mut ack, 100), Err(CodecError::Length { kind: ACK, len: 9 }));
        let mut short = BytesMut::from(&[HELLO, 0, 0, 0, 41][..]);
        assert_eq!(decode(&mut short, 100), Err(CodecError::Length { kind: HELLO, len: 41 }));
    }

    #[test]
    fn a_later_versions_longer_hello_is_understood() {
        let hello =
            Hello { version: 2, incarnation: 1, epoch: 1, peer_epoch: 0, attempt: 1, received_upto: 0 };
        let mut bytes = bytes_of(&StreamFrame::Hello(hello));
        bytes[4] += 3;
        bytes.extend_from_slice(&[9, 9, 9]);
        assert_eq!(decode(&mut bytes, 0), Ok(Some(StreamFrame::Hello(hello))));
        assert!(bytes.is_empty());
    }

    fn frames() -> impl Strategy<Value = StreamFrame> {
        let payload = prop_oneof![0..200usize, COPY_UPTO - 2..COPY_UPTO + 3];
        prop_oneof![
            (any::<u16>(), any::<[u64; 5]>()).prop_map(|(version, n)| StreamFrame::Hello(Hello {
                version,
                incarnation: n[0],
                epoch: n[1],
                peer_epoch: n[2],
                attempt: n[3],
                received_upto: n[4],
            })),
            (1u64.., payload).prop_map(|(no, len)| StreamFrame::Data { no, payload: vec![7; len].into() }),
            any::<u64>().prop_map(|upto| StreamFrame::Ack { upto }),
            (1..u64::MAX, any::<u16>()).prop_map(|(first, more)| StreamFrame::Gap {
                first,
                last: first.saturating_add(u64::from(more))
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_in_pieces_of_any_size(
            sent in proptest::collection::vec(frames(), 0..20),
            piece in 1..4_000usize,
        ) {
            let mut stream = BytesMut::new();
            for frame in &sent {
                encode(frame, &mut stream);
            }
            let (mut buf, mut got) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(piece) {
                buf.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buf, COPY_UPTO * 2).unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn mangled_bytes_never_panic(
            sent in proptest::collection::vec(frames(), 1..4),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut stream = BytesMut::new();
            for frame in &sent {
                encode(frame, &mut stream);
            }
            let at = at.index(stream.len());
            stream[at] = to;
            stream.truncate(cut.index(stream.len()) + 1);
            while let Ok(Some(_)) = decode(&mut stream, 100) {}
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut buf = BytesMut::from(&noise[..]);
            while let Ok(Some(_)) = decode(&mut buf, 100) {}
        }
    }
}
