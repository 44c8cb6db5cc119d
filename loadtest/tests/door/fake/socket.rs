//! One socket of the fake server.

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use common::{
    ids::UserId,
    wire::{
        client::ClientFrame,
        codec::{FromClient, decode_client},
    },
};
use tokio::sync::mpsc;

use super::{Shared, world::Out};

/// Frames that wait for one socket: more than a test ever has under way.
const QUEUE: usize = 10_000;

pub(super) async fn serve(mut ws: WebSocket, world: Shared, user: UserId) {
    let (outbox, mut frames) = mpsc::channel(QUEUE);
    let Some(Ok(Message::Text(hello))) = ws.recv().await else { return };
    let Ok(FromClient::Frame(ClientFrame::Hello(hello))) = decode_client(&hello) else { return };
    let socket = world.lock().connect(user, outbox, hello);
    loop {
        tokio::select! {
            out = frames.recv() => match out {
                Some(Out::Later(text)) => later(&world, socket, text),
                Some(Out::Frame(text)) => if ws.send(Message::text(text)).await.is_err() { break },
                Some(Out::Close(code)) => {
                    let close = CloseFrame { code, reason: "".into() };
                    let _ = ws.send(Message::Close(Some(close))).await;
                    break;
                }
                // No goodbye: the network is gone.
                Some(Out::Cut) | None => break,
            },
            frame = ws.recv() => match frame {
                Some(Ok(Message::Text(text))) => match decode_client(&text) {
                    Ok(FromClient::Frame(frame)) => world.lock().take(socket, user, frame),
                    other => panic!("{other:?}"),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_))) => {}
                _ => break,
            },
        }
    }
    world.lock().sockets.remove(&socket);
}

/// Says it after a moment, in which other things are said.
fn later(world: &Shared, socket: u64, text: String) {
    let world = Shared::clone(world);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        world.lock().end_of_resume(socket, text);
    });
}
