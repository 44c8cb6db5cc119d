//! The frames of a link that the peer has not acknowledged, and how far they have been written. Pure: the locks are in `core`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    Discarded, FrameNo, SendError,
    codec::{self, StreamFrame},
    defaults::{BATCH_BYTES, BATCH_FRAMES},
};

/// Payloads from here on are written without a copy.
const OWN_CHUNK: usize = 4 * 1024;

/// One number, or a run of numbers that could not be held.
struct Entry {
    first: u64,
    last: u64,
    /// `None`: a gap.
    payload: Option<Bytes>,
}

/// A bounded queue. Numbers run from 1 and never start again, whatever happens to the peer.
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    /// Payload bytes in `entries`.
    bytes: usize,
    frames: usize,
    max_frames: usize,
    max_bytes: usize,
    next: u64,
    /// How many of `entries`, from the front, were written on the current connection.
    written: usize,
    /// The highest number ever written on any connection.
    sent_upto: u64,
    acked: u64,
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) chunks: Vec<Bytes>,
    /// How many data frames are in it.
    pub(super) frames: u64,
    /// How many of those had been written before, on a connection that broke.
    pub(super) resent: u64,
}

impl Outbox {
    pub(super) fn new(max_frames: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            frames: 0,
            max_frames,
            max_bytes,
            next: 1,
            written: 0,
            sent_upto: 0,
            acked: 0,
        }
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, payload: Bytes) -> Result<FrameNo, SendError> {
        // One frame always fits, so that a bound below its length does not block for ever.
        let full = self.frames >= self.max_frames
            || (self.frames > 0 && self.bytes.saturating_add(payload.len()) > self.max_bytes);
        if full {
            return Err(SendError::Full);
        }
        let no = self.take_number();
        self.bytes += payload.len();
        self.frames += 1;
        self.entries.push_back(Entry { first: no, last: no, payload: Some(payload) });
        Ok(FrameNo(no))
    }

    /// Gives a number to a frame that will never be sent. Gaps that follow each other are one entry, so there are at most as many as
    /// frames, and one more. One that has been written grows all the same and is written again; the receiver names what is new in it.
    pub(super) fn push_gap(&mut self) -> FrameNo {
        let no = self.take_number();
        match self.entries.back_mut() {
            Some(Entry { last, payload: None, .. }) => *last = no,
            _ => self.entries.push_back(Entry { first: no, last: no, payload: None }),
        }
        self.written = self.written.min(self.entries.len().saturating_sub(1));
        FrameNo(no)
    }

    fn take_number(&mut self) -> u64 {
        let no = self.next;
        self.next = self.next.saturating_add(1);
        no
    }

    /// Drops what the peer has. False when it claims a number that was never sent to it.
    pub(super) fn acknowledge(&mut self, upto: u64) -> bool {
        if upto > self.sent_upto {
            return false;
        }
        while let Some(front) = self.entries.front_mut() {
            if front.last > upto {
                // A merged gap may be acknowledged in part.
                front.first = front.first.max(upto.saturating_add(1));
                break;
            }
            self.remove_front();
        }
        self.acked = self.acked.max(upto);
        true
    }

    fn remove_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.written = self.written.saturating_sub(1);
        if let Some(payload) = entry.payload {
            self.bytes -= payload.len();
            self.frames -= 1;
        }
    }

    /// A new connection to the same state of the peer: everything it does not have is to be written again.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
    }

    /// The peer's state is a new one: nothing in here was meant for it.
    pub(super) fn discard(&mut self) -> Option<Discarded> {
        let first = self.entries.front()?.first;
        let last = self.next.saturating_sub(1);
        let discarded =
            Discarded { first: FrameNo(first), last: FrameNo(last), sent_upto: FrameNo(self.sent_upto) };
        self.entries.clear();
        (self.bytes, self.frames, self.written) = (0, 0, 0);
        Some(discarded)
    }

    /// What to write next, up to a batch; the caller writes all of it or gives up the connection. Empty when there is nothing.
    pub(super) fn next_batch(&mut self, ack: Option<u64>) -> Batch {
        let mut batch = Batch::default();
        let mut head = BytesMut::new();
        if let Some(upto) = ack {
            codec::encode(&StreamFrame::Ack { upto }, &mut head);
        }
        let mut bytes = 0;
        for entry in self.entries.iter().skip(self.written).take(BATCH_FRAMES) {
            if bytes >= BATCH_BYTES {
                break;
            }
            match &entry.payload {
                None => codec::encode(&StreamFrame::Gap { first: entry.first, last: entry.last }, &mut head),
                Some(payload) => {
                    codec::encode_data_head(entry.first, payload.len(), &mut head);
                    bytes += payload.len();
                    batch.frames += 1;
                    batch.resent += u64::from(entry.first <= self.sent_upto);
                    if payload.len() < OWN_CHUNK {
                        head.extend_from_slice(payload);
                    } else {
                        batch.chunks.push(head.split().freeze());
                        batch.chunks.push(payload.clone());
                    }
                }
            }
            self.written += 1;
            self.sent_upto = self.sent_upto.max(entry.last);
        }
        if !head.is_empty() {
            batch.chunks.push(head.freeze());
        }
        batch
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The last number given.
    pub(super) fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.written < self.entries.len()
    }

    /// Whether anything up to `no` is neither acknowledged nor discarded.
    pub(super) fn holds_upto(&self, no: u64) -> bool {
        self.entries.front().is_some_and(|front| front.first <= no)
    }

    /// Frames held, gaps not counted.
    pub(super) fn len(&self) -> usize {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![1; len])
    }

    fn numbers(batch: Batch) -> Vec<StreamFrame> {
        let mut stream: BytesMut = batch.chunks.concat().as_slice().into();
        std::iter::from_fn(|| codec::decode(&mut stream, 1 << 20).unwrap()).collect()
    }

    fn sent(outbox: &mut Outbox) -> Vec<(u64, u64)> {
        let one = |frame| match frame {
            StreamFrame::Data { no, .. } => (no, no),
            StreamFrame::Gap { first, last } => (first, last),
            other => panic!("{other:?}"),
        };
        numbers(outbox.next_batch(None)).into_iter().map(one).collect()
    }

    #[test]
    fn frames_leave_in_order_and_again_after_a_break_until_acknowledged() {
        let mut outbox = Outbox::new(10, 1_000);
        for _ in 0..3 {
            outbox.push(frame(1)).unwrap();
        }
        assert_eq!(sent(&mut outbox), [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(sent(&mut outbox), []);
        assert!(outbox.acknowledge(1));
        outbox.push(frame(1)).unwrap();
        outbox.rewind();
        assert_eq!(sent(&mut outbox), [(2, 2), (3, 3), (4, 4)]);
        assert!(outbox.acknowledge(4));
        assert!(!outbox.holds_upto(4));
        assert_eq!(outbox.acked(), 4);
    }

    #[test]
    fn it_is_full_by_frames_or_by_bytes_and_has_room_after_an_acknowledgement() {
        let mut outbox = Outbox::new(2, 1_000);
        outbox.push(frame(1)).unwrap();
        outbox.push(frame(1)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(SendError::Full));
        sent(&mut outbox);
        outbox.acknowledge(1);
        assert_eq!(outbox.push(frame(1)), Ok(FrameNo(3)));

        let mut outbox = Outbox::new(10, 100);
        outbox.push(frame(150)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(SendError::Full));
        sent(&mut outbox);
        outbox.acknowledge(1);
        outbox.push(frame(60)).unwrap();
        assert_eq!(outbox.push(frame(60)), Err(SendError::Full));
    }

    #[test]
    fn a_gap_stands_at_its_place_and_is_one_entry_however_long() {
        let mut outbox = Outbox::new(1, 1_000);
        outbox.push(frame(1)).unwrap();
        outbox.push_gap();
        outbox.push_gap();
        assert_eq!(sent(&mut outbox), [(1, 1), (2, 3)]);
        outbox.push_gap();
        assert_eq!(sent(&mut outbox), [(2, 4)]);
        assert!(outbox.acknowledge(2));
        outbox.push(frame(1)).unwrap();
        outbox.rewind();
        assert_eq!(sent(&mut outbox), [(3, 4), (5, 5)]);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut outbox = Outbox::new(10, 1_000);
        outbox.push(frame(1)).unwrap();
        assert!(!outbox.acknowledge(1));
        sent(&mut outbox);
        assert!(outbox.acknowledge(1));
    }

    #[test]
    fn what_is_discarded_is_named() {
        let mut outbox = Outbox::new(10, 1_000);
        assert_eq!(outbox.discard(), None);
        for _ in 0..2 {
            outbox.push(frame(1)).unwrap();
        }
        sent(&mut outbox);
        outbox.acknowledge(1);
        outbox.push(frame(1)).unwrap();
        let discarded = Discarded { first: FrameNo(2), last: FrameNo(3), sent_upto: FrameNo(2) };
        assert_eq!(outbox.discard(), Some(discarded));
        assert_eq!(outbox.push(frame(1)), Ok(FrameNo(4)));
        assert_eq!(sent(&mut outbox), [(4, 4)]);
    }

    #[test]
    fn long_frames_are_not_copied_and_batches_end() {
        let mut outbox = Outbox::new(1_000, 1 << 30);
        let long = frame(BATCH_BYTES);
        for _ in 0..2 {
            outbox.push(long.clone()).unwrap();
        }
        let batch = outbox.next_batch(None);
        assert_eq!(batch.frames, 1);
        assert!(batch.chunks.iter().any(|chunk| chunk.as_ptr() == long.as_ptr()));
        assert_eq!(sent(&mut outbox), [(2, 2)]);
        for _ in 0..BATCH_FRAMES + 1 {
            outbox.push(frame(1)).unwrap();
        }
        assert_eq!(outbox.next_batch(None).frames, BATCH_FRAMES as u64);
        assert_eq!(outbox.next_batch(None).frames, 1);
    }
}
