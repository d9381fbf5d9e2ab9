//! Channels: JavaScript objects that carry frames. They come from the shell, or are the user's own.
//! A channel may lose, repeat, delay and reorder frames. If it throws, the frame counts as lost.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// A channel, as `www/package/channels.js` describes it.
    pub type Channel;
    /// Begins to receive frames for the node with this id (empty: for no node yet). `room` is the
    /// name under which the nodes find each other. Frames go to `CoreNode.receive`, and
    /// `CoreNode.changed` is called when `connected` may have changed.
    #[wasm_bindgen(method, catch)]
    pub fn connect(this: &Channel, id: &str, room: &str) -> Result<(), JsValue>;
    /// Whether frames can travel now. A channel without this property always counts as connected.
    #[wasm_bindgen(method, getter, catch)]
    fn connected(this: &Channel) -> Result<JsValue, JsValue>;
    /// Sends a frame to the node with this id.
    #[wasm_bindgen(method, catch)]
    fn send(this: &Channel, to: &str, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
    /// Sends a frame to everyone else.
    #[wasm_bindgen(method, catch)]
    fn broadcast(this: &Channel, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
    /// Disconnects. After this nothing is sent or received.
    #[wasm_bindgen(method, catch)]
    pub fn disconnect(this: &Channel) -> Result<(), JsValue>;
    /// Receives frames for one more id: a node that runs here as well.
    #[wasm_bindgen(method, catch)]
    pub fn listen(this: &Channel, id: &str) -> Result<(), JsValue>;
    /// Receives no more frames for this id.
    #[wasm_bindgen(method, catch)]
    pub fn unlisten(this: &Channel, id: &str) -> Result<(), JsValue>;
    /// Releases what may keep the browser from freezing the page. Nothing is sent or received.
    #[wasm_bindgen(method, catch)]
    pub fn pause(this: &Channel) -> Result<(), JsValue>;
    /// Continues after `pause`.
    #[wasm_bindgen(method, catch)]
    pub fn resume(this: &Channel) -> Result<(), JsValue>;
}

impl Channel {
    /// Sends a frame to the node with this id, or to everyone else.
    pub fn post(&self, to: Option<&str>, frame: &[u8]) {
        let frame = js_sys::Uint8Array::from(frame);
        // If this fails, the frame is lost. Nodes send again what is not answered.
        let _ = match to {
            Some(to) => self.send(to, frame),
            None => self.broadcast(frame),
        };
    }

    /// Whether frames can travel now.
    pub fn is_open(&self) -> bool {
        // A getter of the user's own channel may throw.
        self.connected().is_ok_and(|connected| connected != JsValue::FALSE)
    }
}
