//! Between nodes of one JavaScript process, for Node.js, tests and pages with several nodes.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use wasm_bindgen::prelude::*;

use super::{Channel, Sink};

thread_local! {
    static HUB: RefCell<Hub> = RefCell::default();
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setImmediate, catch)]
    fn set_immediate(callback: &js_sys::Function) -> Result<JsValue, JsValue>;
    // By its bare name: where a test has put a document around Node.js, the global object is that one's.
    #[wasm_bindgen(thread_local_v2, js_name = setImmediate)]
    static SET_IMMEDIATE: Option<js_sys::Function>;
}

/// Every node that is connected in this process.
#[derive(Default)]
struct Hub {
    nodes: BTreeMap<u64, (String, String, Sink)>,
    next: u64,
    /// Frames that arrive at the next turn of the event loop.
    queue: VecDeque<(u64, Vec<u8>)>,
    turn: Option<Turn>,
    scheduled: bool,
}

/// How to get the next turn of the event loop, soon: `setTimeout(0)` would take 4 ms in a browser.
struct Turn {
    callback: Closure<dyn FnMut()>,
    port: Option<web_sys::MessagePort>,
}

impl Turn {
    fn new() -> Self {
        let callback = Closure::<dyn FnMut()>::new(deliver);
        if SET_IMMEDIATE.with(Option::is_some) {
            return Self { callback, port: None };
        }
        let channel = web_sys::MessageChannel::new().ok();
        if let Some(channel) = &channel {
            channel.port1().set_onmessage(Some(callback.as_ref().unchecked_ref()));
        }
        Self { callback, port: channel.map(|channel| channel.port2()) }
    }

    fn schedule(&self) {
        let result = match &self.port {
            Some(port) => port.post_message(&JsValue::UNDEFINED),
            None => set_immediate(self.callback.as_ref().unchecked_ref()).map(|_| ()),
        };
        debug_assert!(result.is_ok(), "every JavaScript host has one of the two");
    }
}

fn deliver() {
    let (queue, sinks) = HUB.with_borrow_mut(|hub| {
        hub.scheduled = false;
        let queue = std::mem::take(&mut hub.queue);
        let sinks: BTreeMap<u64, Sink> =
            hub.nodes.iter().map(|(key, (_, _, sink))| (*key, sink.clone())).collect();
        (queue, sinks)
    });
    for (key, frame) in queue {
        if let Some(sink) = sinks.get(&key) {
            (sink.receive)(frame);
        }
    }
}

/// A node's place in the hub.
pub(super) struct Memory {
    key: u64,
    channel: String,
}

impl Memory {
    pub(super) fn new(channel: &str, id: &str, sink: Sink) -> Self {
        let key = HUB.with_borrow_mut(|hub| {
            hub.next += 1;
            hub.nodes.insert(hub.next, (channel.into(), id.into(), sink));
            hub.next
        });
        Self { key, channel: channel.into() }
    }
}

impl Channel for Memory {
    fn send(&self, to: Option<&str>, frame: &[u8]) {
        HUB.with_borrow_mut(|hub| {
            let receivers = hub.nodes.iter().filter(|(key, (channel, id, _))| {
                **key != self.key && *channel == self.channel && to.is_none_or(|to| to == id)
            });
            let receivers: Vec<u64> = receivers.map(|(key, _)| *key).collect();
            hub.queue.extend(receivers.into_iter().map(|key| (key, frame.to_vec())));
            if !hub.queue.is_empty() && !std::mem::replace(&mut hub.scheduled, true) {
                hub.turn.get_or_insert_with(Turn::new).schedule();
            }
        });
    }

    fn close(&self) {
        // The sink may own the last reference to its node: it is dropped outside of the borrow.
        let gone = HUB.with_borrow_mut(|hub| hub.nodes.remove(&self.key));
        drop(gone);
    }
}
