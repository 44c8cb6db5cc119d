//! Groups made from circles (CH-9): said again, whatever became of it the first time, the list holds.

use common::{
    ids::{AppId, UserId},
    store::User,
    time::Millis,
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
