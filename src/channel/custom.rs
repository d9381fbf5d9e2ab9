//! The user's own channel: an object with `connect`, `disconnect`, `send` and `broadcast`. The shell's
//! own, of Redis and socket.io, are such objects, too.

use wasm_bindgen::prelude::*;

use super::{Channel, Sink};
use crate::store::Failure;

#[wasm_bindgen]
extern "C" {
    type UserChannel;
    #[wasm_bindgen(method, catch)]
    fn connect(
        this: &UserChannel,
        id: &str,
        receive: &js_sys::Function,
        changed: &js_sys::Function,
    ) -> Result<(), JsValue>;
    /// Whether frames can travel now; those who do not say so always can.
    #[wasm_bindgen(method, getter)]
    fn connected(this: &UserChannel) -> JsValue;
    #[wasm_bindgen(method, catch)]
    fn disconnect(this: &UserChannel) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn send(this: &UserChannel, to: &str, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn broadcast(this: &UserChannel, frame: js_sys::Uint8Array) -> Result<(), JsValue>;
}

pub(super) struct Custom {
    object: UserChannel,
    trouble: std::rc::Rc<dyn Fn(Failure)>,
}

impl Custom {
    pub(super) fn new(object: &JsValue, id: &str, sink: &Sink) -> Result<Self, JsValue> {
        let object: UserChannel = object.clone().unchecked_into();
        let inner = sink.clone();
        let receive =
            Closure::<dyn FnMut(JsValue)>::new(move |frame: JsValue| inner.receive_js(&frame));
        // The user's channel may call it even after it was disconnected: JavaScript keeps it.
        let receive: js_sys::Function = receive.into_js_value().unchecked_into();
        let moved = sink.moved.clone();
        let changed = Closure::<dyn FnMut()>::new(move || moved());
        let changed: js_sys::Function = changed.into_js_value().unchecked_into();
        object.connect(id, &receive, &changed)?;
        Ok(Self { object, trouble: sink.trouble.clone() })
    }

    fn check(&self, what: &str, result: Result<(), JsValue>) {
        if let Err(error) = result {
            let message = format!(
                "the channel's `{what}` threw, which counts as a lost frame: {}",
                crate::js::message_of(&error)
            );
            (self.trouble)(Failure::new("CHANNEL_FAILED", message));
        }
    }
}

impl Channel for Custom {
    fn send(&self, to: Option<&str>, frame: &[u8]) {
        let bytes = js_sys::Uint8Array::from(frame);
        match to {
            Some(to) => self.check("send", self.object.send(to, bytes)),
            None => self.check("broadcast", self.object.broadcast(bytes)),
        }
    }

    fn is_open(&self) -> bool {
        self.object.connected() != JsValue::FALSE
    }

    fn close(&self) {
        self.check("disconnect", self.object.disconnect());
    }
}
