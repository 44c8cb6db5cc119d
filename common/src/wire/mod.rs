//! The frames of every conversation, one enum per direction, and their bytes.
//!
//! | conversation | frames | bytes |
//! | --- | --- | --- |
//! | client and node, over a socket | [`client`] | JSON, text frames |
//! | node and dispatcher, over a link | [`peer`] | MessagePack with field names |
//! | owner and every node, inside a link's frames | [`marks`] | MessagePack with field names |
//! | node and owner, inside a link's requests | [`owner`] | MessagePack with field names |
//! | owner and everybody, through the log | [`record`] | a version byte, then MessagePack with field names |
//!
//! [`codes`] holds the two closed tables of words and numbers, [`codec`] turns bytes into frames and back.

pub mod client;
pub mod codec;
pub mod codes;
pub mod marks;
pub mod owner;
pub mod peer;
pub mod record;
