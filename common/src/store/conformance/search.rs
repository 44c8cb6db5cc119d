//! Finding messages (ME-6): whatever the index has and lacks, what is found is what a look at every message would find.

use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{Fixture, Scribe, scribe::edited};
use crate::{
    ids::{AppId, ChatId, Number, UserId},
    model::{Message, Role},
    search::Query,
    store::{CHATS_SEARCHED, Findings, Hit, MESSAGES_FOUND, Range, SearchScope, SharedStore},
    time::Millis,
    wire::record::What,
};

/// Makes whatever segments are due.
pub(super) async fn index(store: &SharedStore) -> u64 {
    let mut made = 0;
    while store.index_next(Millis(1)).await.unwrap() {
        made += 1;
    }
    made
}

async fn search(store: &SharedStore, within: SearchScope, query: &str) -> Vec<(ChatId, Number)> {
    let Findings { hits, whole, .. } = store.search(within, &Query::read(query)).await.unwrap();
    assert!(whole, "{query}");
    hits.into_iter().map(|hit| (hit.message.chat, hit.message.number)).collect()
}

async fn found(scribe: &Scribe, chat: ChatId, query: &str) -> Vec<Number> {
    let found = search(&scribe.store, SearchScope::Chat(scribe.key(chat)), query).await;
    found.into_iter().map(|(_, number)| number).collect()
}

async fn everything(scribe: &Scribe, chat: ChatId) -> Vec<Message> {
    let slice = scribe.store.history(scribe.key(chat), Range::After(0), 10_000).await.unwrap();
    slice.unwrap().messages
}

/// What a look at every message finds.
fn looked_up(messages: &[Message], query: &str) -> Vec<Hit> {
    let query = Query::read(query);
    let hit = |message: &Message| {
        let rank = query.rank(&message.body).filter(|_| !message.deleted)?;
        Some(Hit { message: message.clone(), rank })
    };
    let mut hits: Vec<Hit> = messages.iter().filter_map(hit).collect();
    Hit::sort(&mut hits);
    hits.truncate(MESSAGES_FOUND);
    hits
}

/// That every query is answered as by looking at every message.
async fn is_right(scribe: &Scribe, chat: ChatId, queries: &[String]) {
    let messages = everything(scribe, chat).await;
    for query in queries {
        let findings =
            scribe.store.search(SearchScope::Chat(scribe.key(chat)), &Query::read(query)).await.unwrap();
        assert!(findings.whole);
        assert_eq!(findings.head, scribe.head(chat));
        let numbers = |hits: &[Hit]| hits.iter().map(|hit| hit.message.number).collect::<Vec<_>>();
        let expected = looked_up(&messages, query);
        assert_eq!(numbers(&findings.hits), numbers(&expected), "{query}");
        assert_eq!(findings.hits, expected, "{query}");
    }
}

const SYLLABLES: [&str; 12] =
    ["ba", "ce", "di", "fo", "gu", "lam", "nor", "pix", "qua", "rest", "tiv", "wen"];
const CHARACTERS: [&str; 10] = ["東", "京", "大", "阪", "天", "気", "明", "日", "は", "の"];

/// A word that some messages of a thousand have.
fn word(random: &mut StdRng) -> String {
    let count = random.random_range(1..5);
    if random.random_range(0..6) == 0 {
        return (0..count + 1).map(|_| *CHARACTERS.choose(random).unwrap()).collect();
    }
    (0..count).map(|_| *SYLLABLES.choose(random).unwrap()).collect()
}

fn text(random: &mut StdRng) -> String {
    let count = random.random_range(1..6);
    (0..count).map(|_| word(random)).collect::<Vec<_>>().join(" ")
}

/// Words as they are, parts of them, with a typo, two of them, and some that nobody wrote.
fn queries(random: &mut StdRng, count: usize) -> Vec<String> {
    let query = |random: &mut StdRng| {
        let word = word(random);
        let mut chars: Vec<char> = word.chars().collect();
        match random.random_range(0..5) {
            0 => word,
            1 => format!("{word} {}", self::word(random)),
            2 if chars.len() > 4 => {
                chars.remove(random.random_range(0..chars.len()));
                chars.into_iter().collect()
            }
            3 if chars.len() > 4 => chars.into_iter().skip(1).take(4).collect(),
            _ => format!("{word}x"),
        }
    };
    (0..count).map(|_| query(random)).collect()
}

async fn write(scribe: &mut Scribe, chat: ChatId, by: UserId, random: &mut StdRng, count: usize) {
    let mut rest = count;
    while rest > 0 {
        let now = rest.min(random.random_range(1..400));
        rest -= now;
        let changes = (0..now).map(|_| scribe.message(chat, by, &text(random))).collect();
        scribe.write(changes).await;
    }
}

pub async fn messages_are_found_by_parts_of_words_with_a_typo_and_the_best_first(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    for body in [
        "The meeting is at noon",
        "no meetings today",
        "Die Größe der Straße",
        "明日は東京タワーへ行きます",
        "北京天气很好",
        "meetnig?",
        "100% _sure_ 'quoted' \"twice\" \\ -- ; DROP TABLE messages",
    ] {
        scribe.say(chat, ana, body).await;
    }
    for (query, expected) in [
        ("meeting", vec![1, 2, 6]),
        ("MEETNG", vec![6, 1]),
        ("noon meet", vec![1]),
        ("eeting", vec![2, 1]),
        ("strasse gross", vec![3]),
        ("東京", vec![4]),
        ("天气", vec![5]),
        ("京", vec![5, 4]),
        ("drop table", vec![7]),
        ("sure quoted twice", vec![7]),
        ("absent", vec![]),
        ("%", vec![]),
        ("_", vec![]),
        ("", vec![]),
        ("' OR 1=1", vec![]),
    ] {
        assert_eq!(found(&scribe, chat, query).await, expected, "{query}");
    }
    let unknown = SearchScope::Chat(scribe.key(ChatId::random()));
    assert_eq!(search(&scribe.store, unknown, "meeting").await, []);
}

pub async fn what_is_found_is_the_same_whatever_the_index_has(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let mut random = StdRng::seed_from_u64(6);
    let (ana, ben) = (UserId::random(), UserId::random());
    let (chat, other) = (scribe.group(None, &[ana]).await, scribe.group(None, &[ana]).await);
    let queries = queries(&mut random, 40);
    write(&mut scribe, chat, ana, &mut random, 900).await;
    write(&mut scribe, other, ben, &mut random, 300).await;
    is_right(&scribe, chat, &queries).await;
    assert!(scribe.store.index_next(Millis(1)).await.unwrap());
    is_right(&scribe, chat, &queries).await;
    assert_eq!(index(&scribe.store).await, 3, "three of the one in all, and one of the other");
    is_right(&scribe, chat, &queries).await;
    is_right(&scribe, other, &queries).await;

    // In a segment, due, and in none yet; several in one batch, and messages of the same batch.
    write(&mut scribe, chat, ana, &mut random, 200).await;
    for _ in 0..4 {
        let messages = everything(&scribe, chat).await;
        let mut changes = Vec::new();
        for message in messages.choose_multiple(&mut random, 12) {
            if message.deleted {
                continue;
            }
            if random.random() {
                let number = message.number;
                changes.push(scribe.change(chat, ana, What::Erased { number }));
            } else {
                let what = edited(message, &text(&mut random), 7);
                changes.push(scribe.change(chat, ana, what));
            }
        }
        changes.push(scribe.message(chat, ana, "a word that is said once: quintessence"));
        let new = changes.last().and_then(|change| change.message()).unwrap();
        changes.push(scribe.change(chat, ana, edited(&new, "said once more: quintessential", 8)));
        scribe.write(changes).await;
        is_right(&scribe, chat, &queries).await;
        assert_eq!(found(&scribe, chat, "quintessence").await, [] as [Number; 0]);
    }
    assert_eq!(index(&scribe.store).await, 1);
    is_right(&scribe, chat, &queries).await;
    is_right(&scribe, other, &queries).await;
    // Another process sees the same.
    scribe.store = fixture.open().await;
    is_right(&scribe, chat, &queries).await;
}

pub async fn segments_with_changed_messages_are_made_anew(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let mut random = StdRng::seed_from_u64(7);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    write(&mut scribe, chat, ana, &mut random, 600).await;
    assert_eq!(index(&scribe.store).await, 2);
    let store = scribe.store.clone();
    assert_eq!(store.index_changed(Millis(i64::MAX)).await.unwrap(), 0, "nothing is changed");
    let messages = everything(&scribe, chat).await;
    // Not in a segment, and so nothing to be made anew.
    scribe.does(chat, ana, edited(&messages[599], "quintessence", 9)).await;
    assert_eq!(store.index_changed(Millis(i64::MAX)).await.unwrap(), 0);
    scribe.does(chat, ana, edited(&messages[2], "quintessence", 9)).await;
    scribe.does(chat, ana, edited(&messages[2], "quintessence again", 9)).await;
    let gone = scribe.change(chat, ana, What::Erased { number: 4 });
    let at = gone.at;
    scribe.write(vec![gone]).await;
    assert_eq!(store.index_changed(Millis(0)).await.unwrap(), 0, "not long enough ago, and not many");
    assert_eq!(found(&scribe, chat, "quintessence").await, [600, 3]);
    assert_eq!(store.index_changed(Millis(at.0 + 1)).await.unwrap(), 1, "one segment");
    assert_eq!(store.index_changed(Millis(at.0 + 1)).await.unwrap(), 0, "it is due already");
    // Changed again while it is due.
    scribe.does(chat, ana, edited(&messages[9], "quintessence last", 9)).await;
    assert_eq!(index(&store).await, 1);
    assert_eq!(found(&scribe, chat, "quintessence").await, [600, 10, 3]);
    assert_eq!(store.index_changed(Millis(i64::MAX)).await.unwrap(), 0, "nothing in it is changed any more");
    is_right(&scribe, chat, &queries(&mut random, 10)).await;
    // Many at once do not wait.
    let many = messages.iter().skip(20).take(256 - 20);
    let changes: Vec<_> =
        many.map(|message| scribe.change(chat, ana, edited(message, "all new", 9))).collect();
    scribe.write(changes).await;
    let more = messages.iter().skip(256).take(30);
    let changes: Vec<_> =
        more.map(|message| scribe.change(chat, ana, edited(message, "all new", 9))).collect();
    scribe.write(changes).await;
    assert_eq!(found(&scribe, chat, "all new").await.len(), 256 - 20 + 30);
    let again = everything(&scribe, chat).await;
    let many = again.iter().skip(20).take(30);
    let changes: Vec<_> = many.map(|message| scribe.change(chat, ana, edited(message, "newer", 9))).collect();
    scribe.write(changes).await;
    assert_eq!(store.index_changed(Millis(0)).await.unwrap(), 1);
    assert_eq!(index(&store).await, 1);
    assert_eq!(found(&scribe, chat, "newer").await.len(), 30);
    is_right(&scribe, chat, &queries(&mut random, 10)).await;
}

pub async fn segments_grow_and_are_made_once_whoever_makes_them(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let mut random = StdRng::seed_from_u64(8);
    let ana = UserId::random();
    let mut chats = Vec::new();
    for count in [2_500, 300, 255] {
        let chat = scribe.group(None, &[ana]).await;
        write(&mut scribe, chat, ana, &mut random, count).await;
        chats.push(chat);
    }
    let others = [fixture.open().await, fixture.open().await];
    let made: u64 = join_all(others.iter().map(index)).await.into_iter().sum();
    // One may have had to leave what the other was making.
    let made = made + index(&scribe.store).await;
    assert_eq!(made, 9 + 1, "each once");
    let queries = queries(&mut random, 15);
    for chat in chats {
        is_right(&scribe, chat, &queries).await;
    }
}

pub async fn a_word_that_all_messages_have_finds_the_newest(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let chat = scribe.group(None, &[ana]).await;
    for part in 0..3 {
        let say = |n: usize| format!("everybody says hello, {}", part * 600 + n);
        let changes = (0..600).map(|n| scribe.message(chat, ana, &say(n))).collect();
        scribe.write(changes).await;
    }
    for indexed in [false, true] {
        let newest: Vec<Number> = (1_801 - MESSAGES_FOUND as u64..=1_800).rev().collect();
        for query in ["hello", "helol"] {
            let found =
                scribe.store.search(SearchScope::Chat(scribe.key(chat)), &Query::read(query)).await.unwrap();
            let numbers: Vec<Number> = found.hits.iter().map(|hit| hit.message.number).collect();
            assert_eq!(
                (numbers, found.whole),
                (newest.clone(), !indexed),
                "older ones are not looked at: {query}"
            );
        }
        assert_eq!(found(&scribe, chat, "1799 says").await, [1_800]);
        index(&scribe.store).await;
    }
}

pub async fn me_6_a_search_that_leaves_chats_out_says_so(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let ana = UserId::random();
    let mut last = ChatId::random();
    for _ in 0..=CHATS_SEARCHED {
        last = scribe.group(None, &[ana]).await;
        scribe.say(last, ana, "hello").await;
    }
    let mine = SearchScope::ChatsOf(AppId::DEFAULT, ana);
    let found = scribe.store.search(mine, &Query::read("hello")).await.unwrap();
    assert_eq!((found.hits.len(), found.whole), (CHATS_SEARCHED, false));
    scribe.does(last, ana, What::Deleted).await;
    assert_eq!(search(&scribe.store, mine, "hello").await.len(), CHATS_SEARCHED);
}

pub async fn a_search_in_all_chats_finds_what_one_is_in(fixture: &dyn Fixture) {
    let mut scribe = Scribe::new(fixture.open().await);
    let mut random = StdRng::seed_from_u64(9);
    let (ana, ben) = (UserId::random(), UserId::random());
    let mut chats = Vec::new();
    for count in [600, 30, 0] {
        let chat = scribe.group(None, &[ana, ben]).await;
        write(&mut scribe, chat, ben, &mut random, count).await;
        chats.push(chat);
    }
    let foreign = scribe.group(None, &[ben]).await;
    let mine = SearchScope::ChatsOf(AppId::DEFAULT, ana);
    for round in 0..2 {
        let mut all = Vec::new();
        for chat in &chats {
            all.extend(everything(&scribe, *chat).await);
        }
        for query in queries(&mut random, 20) {
            let expected: Vec<_> = looked_up(&all, &query)
                .into_iter()
                .map(|hit| (hit.message.chat, hit.message.number))
                .collect();
            assert_eq!(search(&scribe.store, mine, &query).await, expected, "{query} {round}");
        }
        index(&scribe.store).await;
    }
    for chat in [foreign, chats[0], chats[1], chats[2]] {
        scribe.say(chat, ben, "quintessence").await;
    }
    let everywhere = [(chats[2], 1), (chats[1], 31), (chats[0], 601)];
    assert_eq!(search(&scribe.store, mine, "quintessence").await, everywhere);
    scribe.does(chats[1], ben, What::Left { user: ana, heir: Some(ben) }).await;
    scribe.does(chats[2], ana, What::Deleted).await;
    assert_eq!(search(&scribe.store, mine, "quintessence").await, everywhere[2..]);
    scribe.does(foreign, ben, What::Joined { user: ana, role: Role::Member }).await;
    assert_eq!(search(&scribe.store, mine, "quintessence").await, [(chats[0], 601), (foreign, 1)]);
    let elsewhere = SearchScope::ChatsOf(AppId::random(), ana);
    assert_eq!(search(&scribe.store, elsewhere, "quintessence").await, []);
    let nobody = SearchScope::ChatsOf(AppId::DEFAULT, UserId::random());
    assert_eq!(search(&scribe.store, nobody, "quintessence").await, []);
}
