//! One socket's life.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use conflux::wire::relay as envelope;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::Relay;
use crate::rooms::{Farewell, Guest, Seat};

/// How long a socket has to take a last word and to say goodbye itself. To drop it at once would
/// reset the connection, and the reason might never be read.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(3);

/// Serves a socket until it goes or has to.
pub(crate) async fn serve(
    relay: Arc<Relay>,
    seat: Seat,
    mut socket: WebSocket,
    room: String,
    id: String,
) {
    let mut guest = relay.rooms.enter(seat, room.clone(), id.clone());
    tracing::info!(room, id, "in");
    let farewell = converse(&relay, &mut socket, &mut guest).await;
    drop(guest);
    if let Some(farewell) = farewell {
        let (code, reason) = farewell.words();
        tracing::info!(room, id, code, reason, "out");
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = timeout(LAST_WORD, async {
            if socket.send(close).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        })
        .await;
    } else {
        tracing::info!(room, id, "out");
    }
}

/// Passes frames on in both directions. Ends with a reason to close the socket, or with none when
/// it has gone by itself.
async fn converse(
    relay: &Relay,
    socket: &mut WebSocket,
    guest: &mut Guest<'_>,
) -> Option<Farewell> {
    let mut stopping = relay.stopping.clone();
    let mut pings = interval(relay.ping_interval());
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut silent_until = Instant::now() + relay.idle_timeout();
    let inbox = guest.inbox.clone();
    loop {
        tokio::select! {
            farewell = inbox.dismissed() => return Some(farewell),
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => return Some(Farewell::GoingAway),
            () = sleep_until(silent_until) => return Some(Farewell::Idle),
            message = socket.recv() => {
                silent_until = Instant::now() + relay.idle_timeout();
                match message? {
                    Ok(Message::Binary(bytes)) => {
                        if let Err(farewell) = pass_on(guest, &bytes) {
                            return Some(farewell);
                        }
                    }
                    Ok(Message::Text(_)) => {
                        return Some(Farewell::BadFrame("text is not understood: send binary frames"));
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Close(_)) => return None,
                    Err(error) if error.to_string().contains("too long") => {
                        return Some(Farewell::TooLarge);
                    }
                    Err(_) => return None,
                }
            }
            Some(frame) = guest.queue.recv() => {
                let length = frame.len();
                // While a slow socket takes its time, it can still be told to go.
                let sent = tokio::select! {
                    sent = socket.send(Message::Binary(frame)) => sent,
                    farewell = inbox.dismissed() => return Some(farewell),
                };
                inbox.written(length);
                if sent.is_err() {
                    return None;
                }
            }
            _ = pings.tick() => {
                let sent = tokio::select! {
                    sent = socket.send(Message::Ping(Bytes::new())) => sent,
                    farewell = inbox.dismissed() => return Some(farewell),
                };
                if sent.is_err() {
                    return None;
                }
            }
        }
    }
}

fn pass_on(guest: &Guest<'_>, bytes: &Bytes) -> Result<(), Farewell> {
    let (to, frame) = envelope::open(bytes).map_err(|error| match error {
        envelope::EnvelopeError::Short => Farewell::BadFrame("the envelope ends too early"),
        envelope::EnvelopeError::Id => Farewell::BadFrame("the receiver's id is not UTF-8"),
    })?;
    guest.send(to, &bytes.slice_ref(frame));
    Ok(())
}
