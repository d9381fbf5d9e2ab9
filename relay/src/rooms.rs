//! Which sockets are in which room, and the frames that wait for each socket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::{Notify, mpsc};

/// Why the relay closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The socket sent something that is not an envelope.
    BadFrame(&'static str),
    /// The socket reads too slowly.
    TooSlow,
    /// A newer connection has the same id.
    Replaced,
    /// The socket was silent for longer than the idle timeout.
    Idle,
    /// The socket sent a message that is too large.
    TooLarge,
    /// The relay shuts down.
    GoingAway,
}

impl CloseReason {
    /// The WebSocket close code and reason.
    pub(crate) fn code_and_reason(self) -> (u16, &'static str) {
        match self {
            Self::BadFrame(why) => (4400, why),
            Self::TooSlow => (4408, "this connection reads too slowly"),
            Self::Replaced => (4409, "another connection with this id took its place"),
            Self::Idle => (4410, "nothing was heard of this connection"),
            Self::TooLarge => (1009, "the frame is larger than 1 MiB"),
            Self::GoingAway => (1001, "the relay shuts down"),
        }
    }
}

/// Roughly how much memory a waiting frame takes besides its content, in bytes.
const OVERHEAD: usize = 128;

/// A socket's entry in its room, with the queue for the frames that others send to the socket.
#[derive(Clone)]
struct Entry {
    /// Distinguishes connections with the same id: a newer one has a higher serial.
    serial: usize,
    queue: mpsc::UnboundedSender<Bytes>,
    out: Arc<OutQueue>,
}

/// What an entry and the task of its socket share.
#[derive(Default)]
pub(crate) struct OutQueue {
    /// The size of the frames in the queue, in bytes, each with [`OVERHEAD`].
    waiting: AtomicUsize,
    /// Why the socket is to be closed, once it is.
    reason: Mutex<Option<CloseReason>>,
    /// Wakes the socket's task when `reason` is set.
    closed: Notify,
}

impl OutQueue {
    /// Call when a frame of this size, in bytes, was written to the socket.
    pub(crate) fn written(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes + OVERHEAD, Ordering::Relaxed);
    }

    /// Waits until the socket is to be closed; returns the reason.
    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            if let Some(reason) = *lock(&self.reason) {
                return reason;
            }
            self.closed.notified().await;
        }
    }

    fn close(&self, reason: CloseReason) {
        lock(&self.reason).get_or_insert(reason);
        self.closed.notify_one();
    }
}

/// Locks a mutex. A poisoned one is usable: no code here leaves the data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All rooms, and the limits that they share.
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<String, HashMap<String, Entry>>>,
    connections: Arc<AtomicUsize>,
    serials: AtomicUsize,
    max_connections: usize,
    max_queue: usize,
}

/// A socket's membership in a room, held by the socket's task. Dropping it leaves the room.
pub(crate) struct Connection {
    rooms: Arc<Rooms>,
    pub(crate) room: String,
    pub(crate) id: String,
    serial: usize,
    pub(crate) queue: mpsc::UnboundedReceiver<Bytes>,
    pub(crate) out: Arc<OutQueue>,
}

/// A permit for one of the `max_connections`. Dropping it frees the permit.
pub(crate) struct Permit {
    connections: Arc<AtomicUsize>,
    /// Higher for each later request to connect.
    serial: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Rooms {
    pub(crate) fn new(max_connections: usize, max_queue: usize) -> Self {
        Self {
            rooms: Mutex::default(),
            connections: Arc::default(),
            serials: AtomicUsize::new(0),
            max_connections,
            max_queue,
        }
    }

    /// How many connections there are, including those that are being set up.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Reserves a permit for a new connection, unless all are taken.
    pub(crate) fn reserve(&self) -> Option<Permit> {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { connections: self.connections.clone(), serial };
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        (taken < self.max_connections).then_some(permit)
    }

    /// Adds a connection to a room. This happens before the client learns that it is connected, so
    /// that the client receives the answers to whatever it sends first. Of two connections with the
    /// same id the one stays that was requested later: the other is usually an earlier connection
    /// of the same client, which has not yet noticed that it is dead. The calls for the two may
    /// come in a different order than the requests.
    pub(crate) fn enter(self: &Arc<Self>, permit: &Permit, room: String, id: String) -> Connection {
        let (sender, queue) = mpsc::unbounded_channel();
        let serial = permit.serial;
        let out = Arc::new(OutQueue::default());
        let entry = Entry { serial, queue: sender, out: out.clone() };
        let mut rooms = lock(&self.rooms);
        let entries = rooms.entry(room.clone()).or_default();
        if entries.get(&id).is_some_and(|other| other.serial > serial) {
            out.close(CloseReason::Replaced);
        } else if let Some(before) = entries.insert(id.clone(), entry) {
            before.out.close(CloseReason::Replaced);
        }
        drop(rooms);
        Connection { rooms: self.clone(), room, id, serial, queue, out }
    }
}

impl Connection {
    /// Passes a frame on to one socket in the room, or to all others.
    pub(crate) fn send(&self, to: Option<&str>, frame: &Bytes) {
        let rooms = lock(&self.rooms.rooms);
        let Some(room) = rooms.get(&self.room) else { return };
        match to {
            Some(to) => {
                if let Some(entry) = room.get(to) {
                    self.enqueue(entry, frame);
                }
            }
            None => {
                let others = room.iter().filter(|(id, _)| **id != self.id);
                others.for_each(|(_, entry)| self.enqueue(entry, frame));
            }
        }
    }

    fn enqueue(&self, entry: &Entry, frame: &Bytes) {
        let size = frame.len() + OVERHEAD;
        let waiting = entry.out.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting + size > self.rooms.max_queue {
            entry.out.close(CloseReason::TooSlow);
            return;
        }
        // Fails if the socket has just closed: the frame is lost.
        let _ = entry.queue.send(frame.clone());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut rooms = lock(&self.rooms.rooms);
        if let Some(room) = rooms.get_mut(&self.room) {
            // By now the entry may belong to a newer connection.
            if room.get(&self.id).is_some_and(|entry| entry.serial == self.serial) {
                room.remove(&self.id);
            }
            if room.is_empty() {
                rooms.remove(&self.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_with_one_id_the_one_stays_that_asked_later() {
        let rooms = Arc::new(Rooms::new(10, 1 << 20));
        let (first, second) = (rooms.reserve().expect("room"), rooms.reserve().expect("room"));
        let enter = |permit| rooms.enter(permit, "r".into(), "a".into());
        let said = |connection: &Connection| *lock(&connection.out.reason);
        for late in [false, true] {
            let (one, two) = if late {
                let two = enter(&second);
                (enter(&first), two)
            } else {
                let one = enter(&first);
                (one, enter(&second))
            };
            assert_eq!((said(&one), said(&two)), (Some(CloseReason::Replaced), None));
            drop(one);
            assert!(
                lock(&rooms.rooms)["r"].contains_key("a"),
                "the other connection is still in its room"
            );
        }
    }
}
