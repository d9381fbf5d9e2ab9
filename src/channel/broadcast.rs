//! Between tabs of one browser: a BroadcastChannel for everyone, and one for each node, so that no
//! tab reads the others' mail.

use std::cell::RefCell;
use std::collections::BTreeMap;

use wasm_bindgen::prelude::*;
use web_sys::{BroadcastChannel, MessageEvent};

use super::{Channel, Sink};
use crate::store::Failure;

pub(super) struct Broadcast {
    name: String,
    /// `None` while it is paused.
    everyone: RefCell<Option<BroadcastChannel>>,
    /// By the id of each node that runs here.
    own: RefCell<BTreeMap<String, BroadcastChannel>>,
    peers: RefCell<BTreeMap<String, BroadcastChannel>>,
    on_message: Closure<dyn FnMut(MessageEvent)>,
}

impl Broadcast {
    pub(super) fn new(channel: &str, id: &str, sink: Sink) -> Result<Self, JsValue> {
        let name = format!("conflux:{channel}");
        let global = js_sys::global();
        if !js_sys::Reflect::has(&global, &"BroadcastChannel".into()).unwrap_or(false) {
            let message = "the channel `broadcast` needs BroadcastChannel, which is not there";
            return Err(crate::js::error(&Failure::new("UNSUPPORTED", message)));
        }
        let everyone = BroadcastChannel::new(&name)?;
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            sink.receive_js(&event.data());
        });
        everyone.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        let everyone = RefCell::new(Some(everyone));
        let (own, peers) = (RefCell::default(), RefCell::default());
        let broadcast = Self { name, everyone, own, peers, on_message };
        if !id.is_empty() {
            broadcast.listen(id);
        }
        Ok(broadcast)
    }
}

fn own_name(name: &str, id: &str) -> String {
    format!("{name}:{id}")
}

impl Channel for Broadcast {
    fn send(&self, to: Option<&str>, frame: &[u8]) {
        let bytes = js_sys::Uint8Array::from(frame);
        let mut peers = self.peers.borrow_mut();
        let everyone = self.everyone.borrow();
        let Some(everyone) = everyone.as_ref() else { return };
        let channel = match to {
            None => everyone,
            Some(id) => match peers.entry(id.into()) {
                std::collections::btree_map::Entry::Occupied(entry) => &*entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let Ok(channel) = BroadcastChannel::new(&own_name(&self.name, id)) else {
                        return; // Like a lost frame.
                    };
                    &*entry.insert(channel)
                }
            },
        };
        // It fails only when the channel is closed, and then the frame is lost like any other.
        let _ = channel.post_message(&bytes);
    }

    fn listen(&self, id: &str) {
        let Ok(channel) = BroadcastChannel::new(&own_name(&self.name, id)) else { return };
        channel.set_onmessage(Some(self.on_message.as_ref().unchecked_ref()));
        // What is open for sending to a node would be given what is sent to it, too.
        if let Some(peer) = self.peers.borrow_mut().remove(id) {
            peer.close();
        }
        self.own.borrow_mut().insert(id.into(), channel);
    }

    fn unlisten(&self, id: &str) {
        if let Some(channel) = self.own.borrow_mut().remove(id) {
            channel.set_onmessage(None);
            channel.close();
        }
    }

    fn pause(&self) {
        if let Some(everyone) = self.everyone.take() {
            everyone.set_onmessage(None);
            everyone.close();
        }
    }

    fn resume(&self) {
        let mut everyone = self.everyone.borrow_mut();
        if everyone.is_none() {
            *everyone = BroadcastChannel::new(&self.name).ok();
            if let Some(channel) = everyone.as_ref() {
                channel.set_onmessage(Some(self.on_message.as_ref().unchecked_ref()));
            }
        }
    }

    fn close(&self) {
        self.pause();
        let ids: Vec<_> = self.own.borrow().keys().cloned().collect();
        ids.iter().for_each(|id| self.unlisten(id));
        for channel in std::mem::take(&mut *self.peers.borrow_mut()).values() {
            channel.close();
        }
    }
}
