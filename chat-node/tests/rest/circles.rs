//! Groups made from circles (CH-9): said again, whatever became of it the first time, the list holds.

use chat_node::ask::AskOwner;
use common::{
    ids::{AppId, ChatId, UserId},
    store::User,
    time::Millis,
    wire::owner::{Ask, OwnerRequest},
};
use http::Method;
use serde_json::{Value, json};

use crate::{
    owner::Mood,
    world::{ADMIN_KEY, Person, Reply, World},
};

impl World {
    async fn circles(&self, circles: Value) -> Reply {
        let operator = Person { id: UserId::APPLICATION, token: ADMIN_KEY.to_owned() };
        let path = format!("/api/v1/applications/{}/circles", AppId::DEFAULT);
        self.put(&operator, &path, json!({ "circles": circles })).await
    }

    /// Says it again for as long as it is told that not all of it is done.
    async fn circles_until_done(&self, circles: &Value) -> Value {
        for _ in 0..10 {
            let reply = self.circles(circles.clone()).await;
            if reply.status != 503 {
                return reply.expect(200);
            }
        }
        panic!("it is never done");
    }

    async fn users(&self, count: usize) -> Vec<UserId> {
        let mut users = Vec::with_capacity(count);
        for n in 0..count {
            let user =
                User::without_password(UserId::random(), format!("n{n}"), format!("N {n}"), Millis::now());
            assert!(self.store.add_user(AppId::DEFAULT, &user).await.unwrap());
            users.push(user.id);
        }
        users
    }

    async fn members(&self, done: &Value) -> u64 {
        let operator = Person { id: UserId::APPLICATION, token: ADMIN_KEY.to_owned() };
        let path = format!("/api/v1/applications/{}/chats", AppId::DEFAULT);
        let chats = self.call(Some(&operator), Method::GET, &path, Value::Null).await.expect(200);
        let chats = chats["results"].as_array().unwrap();
        let chat = chats.iter().find(|chat| chat["id"] == done["results"][0]["chat"]).unwrap();
        chat["members_count"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_large_circle_whose_making_broke_off_is_said_again_and_is_whole_ch_9() {
    let world = World::new().await;
    let members = world.users(3_500).await;
    let circle = json!([{ "key": "degree", "name": "Degree", "members": members }]);
    world.owner.feel(Mood::BreaksOff);
    world.circles(circle.clone()).await.refused(503, "outcome_unknown");
    world.owner.feel(Mood::Well);
    let done = world.circles(circle.clone()).await.expect(200);
    assert_eq!((&done["results"][0]["made"], &done["results"][0]["added"]), (&json!(true), &json!(0)));
    assert_eq!(world.members(&done).await, 3_500);
    let again = world.circles(circle).await.expect(200);
    assert_eq!((&again["results"][0]["made"], &again["results"][0]["added"]), (&json!(false), &json!(0)));
}

#[tokio::test]
async fn a_list_that_changes_a_great_deal_is_done_in_as_many_requests_as_it_takes_ch_9() {
    let world = World::new().await;
    let members = world.users(2_600).await;
    let circle = |members: &[UserId]| json!([{ "key": "degree", "name": "Degree", "members": members }]);
    world.circles(circle(&members[..100])).await.expect(200);
    let done = world.circles_until_done(&circle(&members[200..])).await;
    assert_eq!(world.members(&done).await, 2_400);
    let again = world.circles(circle(&members[200..])).await.expect(200);
    assert_eq!((&again["results"][0]["added"], &again["results"][0]["removed"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn somebody_who_was_erased_does_not_stand_in_the_way_of_a_list_and_a_stranger_is_named_ch_9() {
    let world = World::new().await;
    let users = world.users(4).await;
    let list = |users: &[UserId]| {
        json!([
            { "key": "maths", "name": "Maths", "members": &users[..2] },
            { "key": "arts", "name": "Arts", "members": &users[2..] },
        ])
    };
    world.circles(list(&users[..3])).await.expect(200);
    for gone in [users[1], users[3]] {
        assert!(world.store.erase_user(AppId::DEFAULT, gone, Millis::now()).await.unwrap());
    }
    // One of them has left as erased users do, the other was never in.
    let left = Ask::RemoveMember { user: users[1] };
    let chat = ChatId::keyed(AppId::DEFAULT, UserId::APPLICATION, "circle/maths");
    let app = AppId::DEFAULT;
    world.owner.ask(OwnerRequest { app, chat, by: users[1], retry: false, ask: left }).await;
    for _ in 0..2 {
        let done = world.circles(list(&users)).await.expect(200);
        for result in done["results"].as_array().unwrap() {
            assert_eq!((&result["added"], &result["left_out"]), (&json!(0), &json!(1)), "{done}");
        }
    }
    // One that is made with them in the list is made without them.
    let new = json!([{ "key": "new", "name": "New", "members": users }]);
    for made in [true, false] {
        let done = world.circles(new.clone()).await.expect(200);
        assert_eq!((&done["results"][0]["made"], &done["results"][0]["left_out"]), (&json!(made), &json!(2)));
        assert_eq!(world.members(&done).await, 2);
    }

    let mut wrong = list(&users);
    wrong[1]["members"] = json!([users[2], users[3], UserId::random()]);
    wrong[1]["name"] = json!("Other");
    let refused = world.circles(wrong).await.refused(400, "invalid");
    assert_eq!(refused["errors"].as_array().unwrap().len(), 1);
    assert_eq!(refused["errors"][0]["param"], "circles[1].members[2]");
}
