//! Serves one socket, from the time it enters its room until it is closed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use conflux::wire::relay as envelope;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::Relay;
use crate::rooms::{CloseReason, Connection, OutQueue, Permit};

/// How long to wait for the client's close frame after sending ours. Dropping the socket at once
/// would reset the connection, and the client might never read the reason.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);

/// Serves a socket until the client closes it or the relay has a reason to.
pub(crate) async fn serve(
    relay: Arc<Relay>,
    permit: Permit,
    mut socket: WebSocket,
    mut connection: Connection,
) {
    let (room, id) = (connection.room.clone(), connection.id.clone());
    tracing::info!(room, id, "in");
    let Err(reason) = serve_until_closed(&relay, &mut socket, &mut connection).await;
    drop(connection);
    if let Some(reason) = reason {
        let (code, text) = reason.code_and_reason();
        tracing::info!(room, id, code, reason = text, "out");
        let close = Message::Close(Some(CloseFrame { code, reason: text.into() }));
        let _ = timeout(CLOSE_TIMEOUT, async {
            if socket.send(close).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        })
        .await;
    } else {
        tracing::info!(room, id, "out");
    }
    // When the relay shuts down it waits until all permits are free, so the permit is kept until
    // here.
    drop(permit);
}

/// Why serving ended: the relay's reason to close the socket, or none if the client closed it.
type End = Option<CloseReason>;

/// Passes frames on in both directions until the socket ends or must be closed.
async fn serve_until_closed(
    relay: &Relay,
    socket: &mut WebSocket,
    connection: &mut Connection,
) -> Result<Infallible, End> {
    let mut stopping = relay.stopping.clone();
    let mut pings = interval(relay.ping_interval());
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut silent_until = Instant::now() + relay.idle_timeout();
    let out = connection.out.clone();
    loop {
        tokio::select! {
            reason = out.closed() => return Err(Some(reason)),
            () = stopped(&mut stopping) => return Err(Some(CloseReason::GoingAway)),
            () = sleep_until(silent_until) => return Err(Some(CloseReason::Idle)),
            message = socket.recv() => {
                silent_until = Instant::now() + relay.idle_timeout();
                match message.ok_or(None)? {
                    Ok(Message::Binary(bytes)) => {
                        pass_on(connection, &bytes).map_err(Some)?;
                    }
                    Ok(Message::Text(_)) => {
                        let why = "text is not understood: send binary frames";
                        return Err(Some(CloseReason::BadFrame(why)));
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Close(_)) => return Err(None),
                    Err(error) if error.to_string().contains("too long") => {
                        return Err(Some(CloseReason::TooLarge));
                    }
                    Err(_) => return Err(None),
                }
            }
            Some(frame) = connection.queue.recv() => {
                let length = frame.len();
                send(socket, Message::Binary(frame), &out, &mut stopping, silent_until).await?;
                out.written(length);
            }
            _ = pings.tick() => {
                let ping = Message::Ping(Bytes::new());
                send(socket, ping, &out, &mut stopping, silent_until).await?;
            }
        }
    }
}

/// Sends a message to the client. While a slow client blocks this, the socket can still be closed,
/// and the idle timeout still applies.
async fn send(
    socket: &mut WebSocket,
    message: Message,
    out: &OutQueue,
    stopping: &mut watch::Receiver<bool>,
    silent_until: Instant,
) -> Result<(), End> {
    tokio::select! {
        sent = socket.send(message) => sent.map_err(|_| None),
        reason = out.closed() => Err(Some(reason)),
        () = stopped(stopping) => Err(Some(CloseReason::GoingAway)),
        () = sleep_until(silent_until) => Err(Some(CloseReason::Idle)),
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

fn pass_on(connection: &Connection, bytes: &Bytes) -> Result<(), CloseReason> {
    let (to, frame) = envelope::open(bytes).map_err(|error| match error {
        envelope::EnvelopeError::Short => CloseReason::BadFrame("the envelope ends too early"),
        envelope::EnvelopeError::Id => CloseReason::BadFrame("the receiver's id is not UTF-8"),
    })?;
    // Copy the frame: a slice would keep the socket's whole buffer in memory until the slowest
    // receiver has read the frame.
    connection.send(to, &Bytes::copy_from_slice(frame));
    Ok(())
}
