//! Who is in which room, and what waits for each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::{Notify, mpsc};

/// Why the relay closes a socket, with the code that it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It sent something that is no envelope.
    BadFrame(&'static str),
    /// It reads too slowly.
    TooSlow,
    /// It came again, with a new connection.
    Replaced,
    /// Nothing was heard of it.
    Idle,
    /// It sent something too large.
    TooLarge,
    /// The relay shuts down.
    GoingAway,
}

impl Farewell {
    /// The WebSocket close code and reason.
    pub(crate) fn words(self) -> (u16, &'static str) {
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

/// What a frame that waits costs besides its bytes, about.
const OVERHEAD: usize = 128;

/// A socket's place in its room: what others send to it goes in here.
#[derive(Clone)]
struct Place {
    /// Tells the connections of one id apart.
    serial: usize,
    queue: mpsc::UnboundedSender<Bytes>,
    inbox: Arc<Inbox>,
}

/// What a place and its socket share.
#[derive(Default)]
pub(crate) struct Inbox {
    /// How many bytes wait.
    waiting: AtomicUsize,
    farewell: Mutex<Option<Farewell>>,
    dismissed: Notify,
}

impl Inbox {
    /// A frame of this size was written.
    pub(crate) fn written(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes + OVERHEAD, Ordering::Relaxed);
    }

    /// Waits until the socket is to be closed, and says why.
    pub(crate) async fn dismissed(&self) -> Farewell {
        loop {
            if let Some(farewell) = *lock(&self.farewell) {
                return farewell;
            }
            self.dismissed.notified().await;
        }
    }

    fn dismiss(&self, farewell: Farewell) {
        lock(&self.farewell).get_or_insert(farewell);
        self.dismissed.notify_one();
    }
}

/// The data under a lock stays whole even if a thread panicked with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All rooms.
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<String, HashMap<String, Place>>>,
    connections: Arc<AtomicUsize>,
    serials: AtomicUsize,
    max_connections: usize,
    max_queue: usize,
}

/// A socket in a room. Leaves when dropped.
pub(crate) struct Guest {
    rooms: Arc<Rooms>,
    pub(crate) room: String,
    pub(crate) id: String,
    serial: usize,
    pub(crate) queue: mpsc::UnboundedReceiver<Bytes>,
    pub(crate) inbox: Arc<Inbox>,
}

/// One of the connections that there may be. Given back when dropped.
pub(crate) struct Seat {
    connections: Arc<AtomicUsize>,
    /// Grows from each connection that is asked for to the next.
    serial: usize,
}

impl Drop for Seat {
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

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Keeps a seat for a connection that is about to be made, unless all are taken.
    pub(crate) fn reserve(&self) -> Option<Seat> {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { connections: self.connections.clone(), serial };
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        (taken < self.max_connections).then_some(seat)
    }

    /// Lets a connection into a room. That is before its client hears that it is connected: what it asks
    /// others to send then is for it. Of two with one id the one stays that asked later: the other is mostly
    /// its own earlier connection, which has not noticed yet that it is dead. They may come in here in
    /// another order than they asked.
    pub(crate) fn enter(self: &Arc<Self>, seat: &Seat, room: String, id: String) -> Guest {
        let (sender, queue) = mpsc::unbounded_channel();
        let serial = seat.serial;
        let inbox = Arc::new(Inbox::default());
        let place = Place { serial, queue: sender, inbox: inbox.clone() };
        let mut rooms = lock(&self.rooms);
        let places = rooms.entry(room.clone()).or_default();
        if places.get(&id).is_some_and(|other| other.serial > serial) {
            inbox.dismiss(Farewell::Replaced);
        } else if let Some(before) = places.insert(id.clone(), place) {
            before.inbox.dismiss(Farewell::Replaced);
        }
        drop(rooms);
        Guest { rooms: self.clone(), room, id, serial, queue, inbox }
    }
}

impl Guest {
    /// Passes a frame on to one other in the room, or to all.
    pub(crate) fn send(&self, to: Option<&str>, frame: &Bytes) {
        let rooms = lock(&self.rooms.rooms);
        let Some(room) = rooms.get(&self.room) else { return };
        match to {
            Some(to) => {
                if let Some(place) = room.get(to) {
                    self.put(place, frame);
                }
            }
            None => {
                let others = room.iter().filter(|(id, _)| **id != self.id);
                others.for_each(|(_, place)| self.put(place, frame));
            }
        }
    }

    fn put(&self, place: &Place, frame: &Bytes) {
        let size = frame.len() + OVERHEAD;
        let waiting = place.inbox.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting + size > self.rooms.max_queue {
            place.inbox.dismiss(Farewell::TooSlow);
            return;
        }
        // It fails when the socket has just gone: a lost frame.
        let _ = place.queue.send(frame.clone());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut rooms = lock(&self.rooms.rooms);
        if let Some(room) = rooms.get_mut(&self.room) {
            // The place may be another connection's by now.
            if room.get(&self.id).is_some_and(|place| place.serial == self.serial) {
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
        let enter = |seat| rooms.enter(seat, "r".into(), "a".into());
        let said = |guest: &Guest| *lock(&guest.inbox.farewell);
        for late in [false, true] {
            let (one, two) = if late {
                let two = enter(&second);
                (enter(&first), two)
            } else {
                let one = enter(&first);
                (one, enter(&second))
            };
            assert_eq!((said(&one), said(&two)), (Some(Farewell::Replaced), None));
            drop(one);
            assert!(
                lock(&rooms.rooms)["r"].contains_key("a"),
                "the other one's place is still there"
            );
        }
    }
}
