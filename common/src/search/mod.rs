//! What finds messages by their words (ME-6): how a text is folded, which keys it is found under, what matches and how well, and the form
//! of the index. All of it is pure and the same for every engine of the store, which only keep [`segment`]'s bytes and read rows.
//!
//! **What matches.** A query is some words, and a message must have all of them, in any order. Case, accents and widths do not count
//! ([`fold`]). A word matches the same word, a word that begins with it, a word that has it inside (from three letters on), and, from five
//! letters on, a word that differs by one letter wrong, missing, too many, or two that changed places. In scripts without spaces (Chinese,
//! Japanese) and in Korean, what is asked for may stand anywhere, from one character on, as it is. Better matches come first, and of equal
//! ones the newer ([`query`]).
//!
//! **The index.** A chat's messages are cut into segments: every 256 of them make one, eight of those are made anew as one of 2,048, and
//! eight of those as one of 16,384, and again as one of 131,072 ([`segment::firsts`]). A segment is an inverted index that is never changed: for each key ([`keys`]) the
//! messages that have it, in some hundreds to twenty thousand rows of about 1 KiB, each holding the keys of one range. So a search in a chat of a million messages reads
//! the rows of a query's keys in some 20 segments, whatever else there is in the store, and then the messages that have all of the keys:
//! at most a thousand, the newest, so that a word which a third of all messages have costs no more than a rare one.
//!
//! The plan of Postgres for it is one nested loop: a list of (chat, segment, bucket) that the program has worked out, and for each one probe
//! of the primary key of `search_buckets`: some 300 rows for a word of eight letters. It is the same for any query, and needs no statistics. A
//! trigram index over all messages reads the whole list of each part of a word instead, of all chats, and looks at each message in it. On
//! disk the index takes about half of what the messages do (`common/tests/search_speed_postgres.rs` measures it).
//!
//! What is not in a segment yet (the newest 255 messages of a chat, and for a moment some more) is read as it is. The writer of messages
//! does nothing but note that a segment is due; segments are made beside it, in the background, also of what was stored before there was an index. Edits and deletions of messages
//! in segments are noted as well: such messages are read as they are until their segment is made anew, an hour later or when there are
//! many. A match is always looked for in the message as it stands, so whatever the index says too much shows nowhere.

pub(crate) mod fold;
pub(crate) mod keys;
pub(crate) mod query;
pub(crate) mod segment;

pub use query::{Match, Query};
