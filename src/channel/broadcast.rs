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
    everyone: BroadcastChannel,
    own: BroadcastChannel,
    peers: RefCell<BTreeMap<String, BroadcastChannel>>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
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
        let own = BroadcastChannel::new(&own_name(&name, id))?;
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            sink.receive_js(&event.data());
        });
        for channel in [&everyone, &own] {
            channel.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        }
        Ok(Self { name, everyone, own, peers: RefCell::default(), _on_message: on_message })
    }
}

fn own_name(name: &str, id: &str) -> String {
    format!("{name}:{id}")
}

impl Channel for Broadcast {
    fn send(&self, to: Option<&str>, frame: &[u8]) {
        let bytes = js_sys::Uint8Array::from(frame);
        let mut peers = self.peers.borrow_mut();
        let channel = match to {
            None => &self.everyone,
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

    fn close(&self) {
        for channel in [&self.everyone, &self.own] {
            channel.set_onmessage(None);
            channel.close();
        }
        for channel in std::mem::take(&mut *self.peers.borrow_mut()).values() {
            channel.close();
        }
    }
}
