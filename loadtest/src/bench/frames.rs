//! WebSocket frames at the least cost: counted by their beginnings, never read whole. A load generator shares its machine with what it
//! measures.

/// Bytes of a payload that are looked at: enough to tell its type.
const HEAD: usize = 24;

/// What a frame is, as far as is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody's message.
    Event,
    /// The answer to a send.
    Ack,
    /// The answer to `hello`.
    Ready,
    /// The server's `error`.
    Error,
    Ping,
    Close,
    Other,
}

/// Counts the frames in a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter {
    header: [u8; 10],
    has: usize,
    /// Of the frame that is being passed over.
    left: u64,
    head: [u8; HEAD],
    heads: usize,
}

impl Counter {
    /// Passes over the stream's next bytes, and names each frame that ends in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Kind)) {
        loop {
            while !self.header_ends() {
                let Some((byte, rest)) = bytes.split_first() else { return };
                if let Some(place) = self.header.get_mut(self.has) {
                    *place = *byte;
                }
                self.has += 1;
                bytes = rest;
                if self.header_ends() {
                    self.left = self.length();
                    self.heads = 0;
                }
            }
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(here);
            for (place, byte) in self.head.iter_mut().skip(self.heads).zip(payload) {
                *place = *byte;
            }
            self.heads = (self.heads + payload.len()).min(HEAD);
            self.left -= here as u64;
            bytes = rest;
            if self.left > 0 {
                return;
            }
            each(self.kind());
            self.has = 0;
        }
    }

    fn header_ends(&self) -> bool {
        let more = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.has >= 2 && self.has >= 2 + more
    }

    fn length(&self) -> u64 {
        let [_, short, a, b, c, d, e, f, g, h] = self.header;
        match short & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }

    fn kind(&self) -> Kind {
        let head = self.head.get(..self.heads).unwrap_or_default();
        match self.header[0] & 0x0f {
            8 => Kind::Close,
            9 => Kind::Ping,
            1 if head.starts_with(br#"{"type":"new_message""#) => Kind::Event,
            1 if head.starts_with(br#"{"type":"ack""#) => Kind::Ack,
            1 if head.starts_with(br#"{"type":"ready""#) => Kind::Ready,
            1 if head.starts_with(br#"{"type":"error""#) => Kind::Error,
            _ => Kind::Other,
        }
    }
}

/// A client's frame with a mask of zeros, which leaves the payload as it is.
pub(super) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A server's text frame.
pub(super) fn unmasked(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(1, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

fn header(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let first = 0x80 | opcode;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => vec![first, mask | short],
        (_, Ok(medium)) => [&[first, mask | 126][..], &medium.to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for (payload, times) in [
            (r#"{"type":"ready","ref":1}"#.to_owned(), 1),
            (format!(r#"{{"type":"new_message","x":"{}"}}"#, "x".repeat(500)), 3),
            (r#"{"type":"ack","ref":1}"#.to_owned(), 2),
            (format!(r#"{{"type":"new_message","x":"{}"}}"#, "x".repeat(70_000)), 1),
        ] {
            stream.extend(unmasked(payload.as_bytes()).repeat(times));
        }
        stream.extend([0x89, 0, 0x88, 2, 3, 232]);
        let expected = [
            Kind::Ready,
            Kind::Event,
            Kind::Event,
            Kind::Event,
            Kind::Ack,
            Kind::Ack,
            Kind::Event,
            Kind::Ping,
            Kind::Close,
        ];
        for at_once in [1, 2, 3, 7, 100, 1_000, stream.len()] {
            let mut counter = Counter::default();
            let mut kinds = Vec::new();
            for bytes in stream.chunks(at_once) {
                counter.feed(bytes, |kind| kinds.push(kind));
            }
            assert_eq!(kinds, expected, "{at_once} bytes at once");
        }
    }
}
