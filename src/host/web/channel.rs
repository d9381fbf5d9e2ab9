//! How frames travel: through an object of the shell's, which has the channels by name, or through one of
//! the user's own. A channel may lose, repeat, delay and reorder frames; one that throws has lost some.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// A channel, as `www/package/channels.js` describes it.
    pub type Channel;
    /// Begins to take in frames for the node with this id (empty: for none yet), and calls `changed` when
    /// `connected` may have changed. `room` is where the nodes meet.
    #[wasm_bindgen(method, catch)]
    fn connect(
        this: &Channel,
        id: &str,
        receive: &js_sys::Function,
        changed: &js_sys::Function,
        room: &str,
    ) -> Result<(), JsValue>;
    /// Whether frames can travel now; a channel that does not say so always can.
    #[wasm_bindgen(method, getter)]
    fn connected(this: &Channel) -> JsValue;
    /// Sends a frame to the node with this id.
    #[wasm_bindgen(method, catch)]
    fn send(this: &Channel, to: &str, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
    /// Sends a frame to everyone else.
    #[wasm_bindgen(method, catch)]
    fn broadcast(this: &Channel, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
    /// Disconnects; nothing is sent or received any more.
    #[wasm_bindgen(method, catch)]
    pub fn disconnect(this: &Channel) -> Result<(), JsValue>;
    /// Takes in frames for one more id, of a node that runs here as well.
    #[wasm_bindgen(method, catch)]
    pub fn listen(this: &Channel, id: &str) -> Result<(), JsValue>;
    /// Takes in no more of them.
    #[wasm_bindgen(method, catch)]
    pub fn unlisten(this: &Channel, id: &str) -> Result<(), JsValue>;
    /// Lets go of what may keep the page from standing still: nothing is sent or received.
    #[wasm_bindgen(method, catch)]
    pub fn pause(this: &Channel) -> Result<(), JsValue>;
    /// Goes on after `pause`.
    #[wasm_bindgen(method, catch)]
    pub fn resume(this: &Channel) -> Result<(), JsValue>;
}

impl Channel {
    /// Connects the channel of a node.
    ///
    /// # Errors
    /// When it cannot be had here, or the user's own refuses.
    pub fn open(
        self,
        id: &str,
        room: &str,
        receive: impl Fn(Vec<u8>) + 'static,
        changed: impl Fn() + 'static,
    ) -> Result<Self, JsValue> {
        let receive = Closure::<dyn Fn(Vec<u8>)>::new(receive).into_js_value();
        let changed = Closure::<dyn Fn()>::new(changed).into_js_value();
        // The channel may call them even after it was disconnected: JavaScript keeps them.
        self.connect(id, receive.unchecked_ref(), changed.unchecked_ref(), room)?;
        Ok(self)
    }

    /// Sends a frame to the node with this id, or to everyone else.
    pub fn post(&self, to: Option<&str>, frame: &[u8]) {
        let frame = js_sys::Uint8Array::from(frame);
        // What fails is a lost frame.
        let _ = match to {
            Some(to) => self.send(to, frame),
            None => self.broadcast(frame),
        };
    }

    /// Whether frames can travel now.
    pub fn is_open(&self) -> bool {
        self.connected() != JsValue::FALSE
    }
}
