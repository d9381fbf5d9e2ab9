//! One socket's life.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use conflux::wire::relay as envelope;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::Relay;
use crate::rooms::{Farewell, Guest, Inbox, Seat};

/// How long a socket has to take a last word and to say goodbye itself. To drop it at once would
/// reset the connection, and the reason might never be read.
const LAST_WORD: std::time::Duration = std::time::Duration::from_secs(3);

/// Serves a socket until it goes or has to.
pub(crate) async fn serve(relay: Arc<Relay>, seat: Seat, mut socket: WebSocket, mut guest: Guest) {
    let (room, id) = (guest.room.clone(), guest.id.clone());
    tracing::info!(room, id, "in");
    let Err(farewell) = converse(&relay, &mut socket, &mut guest).await;
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
    // Until here the relay waits for this socket when it shuts down.
    drop(seat);
}

/// Why a conversation ended: a reason to close the socket, or none when it has gone by itself.
type End = Option<Farewell>;

/// Passes frames on in both directions until there is an end to it.
async fn converse(
    relay: &Relay,
    socket: &mut WebSocket,
    guest: &mut Guest,
) -> Result<Infallible, End> {
    let mut stopping = relay.stopping.clone();
    let mut pings = interval(relay.ping_interval());
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut silent_until = Instant::now() + relay.idle_timeout();
    let inbox = guest.inbox.clone();
    loop {
        tokio::select! {
            farewell = inbox.dismissed() => return Err(Some(farewell)),
            () = stopped(&mut stopping) => return Err(Some(Farewell::GoingAway)),
            () = sleep_until(silent_until) => return Err(Some(Farewell::Idle)),
            message = socket.recv() => {
                silent_until = Instant::now() + relay.idle_timeout();
                match message.ok_or(None)? {
                    Ok(Message::Binary(bytes)) => {
                        pass_on(guest, &bytes).map_err(Some)?;
                    }
                    Ok(Message::Text(_)) => {
                        let why = "text is not understood: send binary frames";
                        return Err(Some(Farewell::BadFrame(why)));
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Close(_)) => return Err(None),
                    Err(error) if error.to_string().contains("too long") => {
                        return Err(Some(Farewell::TooLarge));
                    }
                    Err(_) => return Err(None),
                }
            }
            Some(frame) = guest.queue.recv() => {
                let length = frame.len();
                speak(socket, Message::Binary(frame), &inbox, &mut stopping, silent_until).await?;
                inbox.written(length);
            }
            _ = pings.tick() => {
                let ping = Message::Ping(Bytes::new());
                speak(socket, ping, &inbox, &mut stopping, silent_until).await?;
            }
        }
    }
}

/// Sends a message. A socket that takes its time with it can still be told to go, and is not waited
/// for longer than a silent one.
async fn speak(
    socket: &mut WebSocket,
    message: Message,
    inbox: &Inbox,
    stopping: &mut watch::Receiver<bool>,
    silent_until: Instant,
) -> Result<(), End> {
    tokio::select! {
        sent = socket.send(message) => sent.map_err(|_| None),
        farewell = inbox.dismissed() => Err(Some(farewell)),
        () = stopped(stopping) => Err(Some(Farewell::GoingAway)),
        () = sleep_until(silent_until) => Err(Some(Farewell::Idle)),
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

fn pass_on(guest: &Guest, bytes: &Bytes) -> Result<(), Farewell> {
    let (to, frame) = envelope::open(bytes).map_err(|error| match error {
        envelope::EnvelopeError::Short => Farewell::BadFrame("the envelope ends too early"),
        envelope::EnvelopeError::Id => Farewell::BadFrame("the receiver's id is not UTF-8"),
    })?;
    // A copy: a slice would keep the socket's whole buffer for as long as the slowest reader waits.
    guest.send(to, &Bytes::copy_from_slice(frame));
    Ok(())
}
