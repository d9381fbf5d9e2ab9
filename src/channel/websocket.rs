//! Through a relay, across browsers and machines. Connects again by itself.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use gloo_timers::callback::Timeout;
use wasm_bindgen::prelude::*;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

use super::{Channel, Sink, backoff};
use crate::store::Failure;
use crate::wire::relay;

/// The relay's close code for "another connection with your id took your place".
const REPLACED: u16 = 4409;
/// A socket with more than this many bytes unsent is too slow: frames are lost rather than queued.
const MAX_BUFFERED: u32 = 8 << 20;

pub(super) struct Websocket(Rc<Inner>);

struct Inner {
    this: Weak<Inner>,
    url: String,
    constructor: js_sys::Function,
    sink: Sink,
    socket: RefCell<Option<WebSocket>>,
    open: Cell<bool>,
    closed: Cell<bool>,
    attempt: Cell<u32>,
    retry: RefCell<Option<Timeout>>,
}

impl Websocket {
    pub(super) fn new(
        url: &str,
        room: &str,
        object: &JsValue,
        id: &str,
        sink: Sink,
    ) -> Result<Self, JsValue> {
        // Node.js 20 has no WebSocket of its own, so the user may bring one.
        let own = js_sys::Reflect::get(object, &"WebSocket".into())?;
        let global = js_sys::Reflect::get(&js_sys::global(), &"WebSocket".into())?;
        let constructor = [own, global].into_iter().find_map(|c| c.dyn_into().ok());
        let Some(constructor) = constructor else {
            let message = "the channel `websocket` needs WebSocket, which is not there: pass one, \
                           such as that of the npm package ws, as `channel.WebSocket`";
            return Err(crate::js::error(&Failure::new("UNSUPPORTED", message)));
        };
        let encode = |text| String::from(js_sys::encode_uri_component(text));
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}room={}&id={}", encode(room), encode(id));
        let inner = Rc::new_cyclic(|this| Inner {
            this: this.clone(),
            url,
            constructor,
            sink,
            socket: RefCell::default(),
            open: Cell::new(false),
            closed: Cell::new(false),
            attempt: Cell::new(0),
            retry: RefCell::default(),
        });
        inner.connect()?;
        Ok(Self(inner))
    }
}

impl Inner {
    fn connect(&self) -> Result<(), JsValue> {
        let args = js_sys::Array::of1(&self.url.as_str().into());
        let socket: WebSocket =
            js_sys::Reflect::construct(&self.constructor, &args)?.unchecked_into();
        socket.set_binary_type(web_sys::BinaryType::Arraybuffer);
        let this = self.this.clone();
        let on_open = Closure::<dyn FnMut()>::new(move || {
            if let Some(this) = this.upgrade() {
                this.open.set(true);
                this.attempt.set(0);
                (this.sink.moved)();
            }
        });
        let sink = self.sink.clone();
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            sink.receive_js(&event.data());
        });
        let this = self.this.clone();
        let on_close = Closure::<dyn FnMut(CloseEvent)>::new(move |event: CloseEvent| {
            if let Some(this) = this.upgrade() {
                this.handle_close(event.code(), &event.reason());
            }
        });
        // A close always follows; without a listener, Node.js would take the error for uncaught.
        let on_error = Closure::<dyn FnMut()>::new(|| {});
        // A socket may still speak when it has been given up: JavaScript keeps its listeners.
        let listener = |closure: JsValue| Some(closure.unchecked_into::<js_sys::Function>());
        socket.set_onopen(listener(on_open.into_js_value()).as_ref());
        socket.set_onmessage(listener(on_message.into_js_value()).as_ref());
        socket.set_onclose(listener(on_close.into_js_value()).as_ref());
        socket.set_onerror(listener(on_error.into_js_value()).as_ref());
        self.socket.replace(Some(socket));
        Ok(())
    }

    fn handle_close(&self, code: u16, reason: &str) {
        let was_open = self.open.replace(false);
        if self.closed.get() {
            return;
        }
        if was_open {
            (self.sink.moved)();
        }
        // 4000 and above, and policy violations, are the relay's own words.
        if code >= 4000 || code == 1008 || code == 1009 {
            let message = format!("the relay closed the connection: {reason} ({code})");
            (self.sink.trouble)(Failure::new("RELAY", message));
        }
        // The other one may be gone soon; meanwhile the two must not throw each other out all the time.
        let attempt = if code == REPLACED { u32::MAX } else { self.attempt.get() };
        self.attempt.set(attempt.saturating_add(1));
        let this = self.this.clone();
        let pause = backoff::pause(attempt, js_sys::Math::random());
        self.retry.replace(Some(Timeout::new(pause, move || {
            if let Some(this) = this.upgrade()
                && !this.closed.get()
                && this.connect().is_err()
            {
                this.handle_close(0, "");
            }
        })));
    }
}

impl Channel for Websocket {
    fn send(&self, to: Option<&str>, frame: &[u8]) {
        let socket = self.0.socket.borrow();
        if let Some(socket) = socket.as_ref().filter(|_| self.0.open.get())
            && socket.buffered_amount() < MAX_BUFFERED
        {
            // It fails only on a socket that is closing: a lost frame.
            let _ = socket.send_with_u8_array(&relay::seal(to, frame));
        }
    }

    fn close(&self) {
        self.0.closed.set(true);
        self.0.open.set(false);
        self.0.retry.take();
        if let Some(socket) = &*self.0.socket.borrow() {
            socket.set_onmessage(None);
            let _ = socket.close();
        }
    }

    fn is_open(&self) -> bool {
        self.0.open.get()
    }
}
