//! Which partition of the log a chat belongs to. Fixed for the life of a topic: every record is found by it.

use crate::ids::{ChatKey, Partition};

/// The most partitions that a log may have.
pub const MAX_PARTITIONS: Partition = 1_024;

/// A log cannot have so many partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partitions: {0} are asked for; 1 to {MAX_PARTITIONS} can be")]
pub struct CountError(Partition);

/// Whether a log can have so many partitions: what every program asks of its settings.
///
/// # Errors
/// [`CountError`].
pub fn check_count(count: Partition) -> Result<(), CountError> {
    if (1..=MAX_PARTITIONS).contains(&count) { Ok(()) } else { Err(CountError(count)) }
}

/// The partition of `chat` among `count` (at least 1). Every record of a chat is in one partition.
pub fn partition_of(chat: ChatKey, count: Partition) -> Partition {
    let hash = stable_hash(&[chat.app.as_bytes(), chat.chat.as_bytes()]);
    // A remainder below a u16 fits one.
    (hash % u64::from(count.max(1))) as Partition
}

/// FNV-1a (64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>) over the parts, then MurmurHash3's finalizer, which
/// FNV needs before its low bits are used. The same on every machine and in every version.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{AppId, ChatId};

    #[test]
    fn the_hash_is_the_same_for_ever() {
        assert_eq!(stable_hash(&[b""]), 0xefd0_1f60_ba99_2926);
        assert_eq!(stable_hash(&[b"chat"]), 0xff64_7b52_3a9c_9456);
    }

    #[test]
    fn chats_spread_evenly_over_the_partitions() {
        let mut counts = [0u32; 16];
        for n in 0..16_000 {
            let chat = ChatKey { app: AppId::DEFAULT, chat: ChatId(Uuid::from_u128(n)) };
            counts[usize::from(partition_of(chat, 16))] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
