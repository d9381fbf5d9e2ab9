//! How frames travel: between nodes of one process, between tabs, through a relay, or as the
//! user's own object does it. A channel may lose, repeat, delay and reorder frames.

pub mod backoff;
#[cfg(target_arch = "wasm32")]
mod broadcast;
#[cfg(target_arch = "wasm32")]
mod custom;
#[cfg(target_arch = "wasm32")]
mod memory;
#[cfg(target_arch = "wasm32")]
mod websocket;

#[cfg(target_arch = "wasm32")]
pub use self::wasm::{Channel, Sink, connect};

#[cfg(target_arch = "wasm32")]
mod wasm {
    use std::rc::Rc;

    use wasm_bindgen::{JsCast, JsValue};

    use super::{broadcast, custom, memory, websocket};
    use crate::host::options::ChannelOptions;
    use crate::store::Failure;

    /// A channel that is connected.
    pub trait Channel {
        /// Sends a frame to the node with this id, or to everyone else.
        fn send(&self, to: Option<&str>, frame: &[u8]);
        /// Disconnects; nothing is sent or received any more.
        fn close(&self);
        /// Takes in frames for one more id, of a node that runs here as well.
        fn listen(&self, _id: &str) {}
        /// Takes in no more of them.
        fn unlisten(&self, _id: &str) {}
        /// Lets go of what may keep the page from standing still: nothing is sent or received.
        fn pause(&self) {}
        /// Goes on after [`Channel::pause`].
        fn resume(&self) {}
        /// Whether frames can travel now.
        fn is_open(&self) -> bool {
            true
        }
    }

    /// Where a channel puts what arrives.
    #[derive(Clone)]
    pub struct Sink {
        /// A frame has arrived.
        pub receive: Rc<dyn Fn(Vec<u8>)>,
        /// Something is wrong that the user may want to know.
        pub trouble: Rc<dyn Fn(Failure)>,
        /// The channel was connected or disconnected.
        pub moved: Rc<dyn Fn()>,
    }

    impl Sink {
        /// Takes a message as a browser gives it: bytes, or else not a frame.
        pub(super) fn receive_js(&self, data: &JsValue) {
            if let Some(bytes) = data.dyn_ref::<js_sys::Uint8Array>() {
                (self.receive)(bytes.to_vec());
            } else if let Some(buffer) = data.dyn_ref::<js_sys::ArrayBuffer>() {
                (self.receive)(js_sys::Uint8Array::new(buffer).to_vec());
            } else {
                // Not even bytes: the reader says what is wrong, and counts it.
                (self.receive)(Vec::new());
            }
        }
    }

    /// Connects the channel of a node. `object` is the user's `channel` option.
    ///
    /// # Errors
    /// When it cannot be had here, or the user's own refuses.
    pub fn connect(
        options: &ChannelOptions,
        object: &JsValue,
        id: &str,
        sink: Sink,
    ) -> Result<Box<dyn Channel>, JsValue> {
        Ok(match options {
            ChannelOptions::Memory { channel } => Box::new(memory::Memory::new(channel, id, sink)),
            ChannelOptions::Broadcast { channel } => {
                Box::new(broadcast::Broadcast::new(channel, id, sink)?)
            }
            ChannelOptions::Websocket { url, room } => {
                Box::new(websocket::Websocket::new(url, room, object, id, sink)?)
            }
            ChannelOptions::Redis { .. }
            | ChannelOptions::SocketIo { .. }
            | ChannelOptions::Custom => Box::new(custom::Custom::new(object, id, &sink)?),
        })
    }
}
