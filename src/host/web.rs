//! The host in a browser or in Node.js: feeds [`HostCore`] and does what it asks.
//!
//! User code runs only while nothing of Rust is borrowed, and may call back in: what it asks for
//! goes into the inbox, which the outermost [`WebHost::pump`] empties. Inputs of one turn are
//! handled together, and all that a turn has to say to one node is one frame.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use gloo_timers::callback::Timeout;
use wasm_bindgen::prelude::*;

use super::core::{HostCore, Input, Notice, Output};
use super::options::Options;
use crate::channel::{self, Channel, Sink};
use crate::js::Hooks;
use crate::js::machine::JsMachine;
use crate::raft::Time;
use crate::store::{Failure, Outcome, Perform, Settled};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = queueMicrotask)]
    fn queue_microtask(callback: &js_sys::Function);
}

/// Milliseconds on a clock that never goes back.
fn now() -> Time {
    performance_now() as Time
}

thread_local! {
    /// Every node that is not closed. A node lives until it is closed, and not until the last of the
    /// page's references to it is collected.
    static LIVE: RefCell<Vec<Rc<WebHost>>> = const { RefCell::new(Vec::new()) };
}

/// Runs one node.
pub struct WebHost {
    this: Weak<WebHost>,
    core: RefCell<HostCore<JsValue>>,
    hooks: Hooks,
    channel: RefCell<Option<Box<dyn Channel>>>,
    inbox: RefCell<Vec<Input<JsValue>>>,
    pumping: Cell<bool>,
    scheduled: Cell<bool>,
    microtask: js_sys::Function,
    timer: RefCell<Option<(Time, Timeout)>>,
    paused: Cell<bool>,
    isolated: Cell<bool>,
    closing: Cell<bool>,
    /// The channel was connected or disconnected.
    moved: Cell<bool>,
    troubles: RefCell<Vec<Failure>>,
}

impl WebHost {
    /// Starts a node. `channel` is the user's `channel` option.
    ///
    /// # Errors
    /// When the channel cannot be had.
    pub fn start(
        options: Options,
        channel: &JsValue,
        hooks: Hooks,
        initial: JsValue,
    ) -> Result<Rc<Self>, JsValue> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| JsValue::from(error.to_string()))?;
        let id = options.settings.id.clone();
        let core = HostCore::new(options.settings, initial, now(), u64::from_le_bytes(seed));
        let host = Rc::new_cyclic(|this: &Weak<Self>| {
            let weak = this.clone();
            let microtask = Closure::<dyn FnMut()>::new(move || {
                if let Some(host) = weak.upgrade() {
                    host.scheduled.set(false);
                    host.pump();
                }
            });
            Self {
                this: this.clone(),
                core: RefCell::new(core),
                hooks,
                channel: RefCell::default(),
                inbox: RefCell::default(),
                pumping: Cell::new(false),
                scheduled: Cell::new(false),
                // JavaScript keeps it for as long as it may still call it.
                microtask: microtask.into_js_value().unchecked_into(),
                timer: RefCell::default(),
                paused: Cell::new(false),
                isolated: Cell::new(false),
                closing: Cell::new(false),
                moved: Cell::new(false),
                troubles: RefCell::default(),
            }
        });
        let connected = channel::connect(&options.channel, channel, &id, host.sink())?;
        host.channel.replace(Some(connected));
        LIVE.with_borrow_mut(|live| live.push(host.clone()));
        host.enqueue(Input::Tick);
        Ok(host)
    }

    fn sink(&self) -> Sink {
        let (receiver, troubled, mover) = (self.this.clone(), self.this.clone(), self.this.clone());
        Sink {
            receive: Rc::new(move |frame| {
                if let Some(host) = receiver.upgrade()
                    && !host.isolated.get()
                {
                    host.enqueue(Input::Frame(frame));
                }
            }),
            trouble: Rc::new(move |failure| {
                if let Some(host) = troubled.upgrade() {
                    host.troubles.borrow_mut().push(failure);
                    host.schedule();
                }
            }),
            moved: Rc::new(move || {
                if let Some(host) = mover.upgrade() {
                    host.moved.set(true);
                    host.schedule();
                }
            }),
        }
    }

    /// The core, to look at.
    pub fn core(&self) -> std::cell::Ref<'_, HostCore<JsValue>> {
        self.core.borrow()
    }

    /// Whether the channel can carry frames now.
    pub fn is_connected(&self) -> bool {
        !self.isolated.get() && self.channel.borrow().as_ref().is_some_and(|c| c.is_open())
    }

    /// Whether the node is paused, and whether it is cut off.
    pub fn faults(&self) -> (bool, bool) {
        (self.paused.get(), self.isolated.get())
    }

    /// Pauses the node, as if its tab were frozen, or cuts it off from the others.
    pub fn set_faults(&self, paused: bool, isolated: bool) {
        // A node that is closing is not stopped any more.
        let paused = paused && !self.closing.get();
        self.isolated.set(isolated);
        if self.paused.replace(paused) && !paused {
            self.enqueue(Input::Tick);
        }
        if paused {
            self.timer.take();
        }
    }

    /// Takes in something to do, at the end of this turn.
    pub fn enqueue(&self, input: Input<JsValue>) {
        let mut inbox = self.inbox.borrow_mut();
        // Performs of one turn are one append.
        match (inbox.last_mut(), input) {
            (Some(Input::Perform(waiting)), Input::Perform(more)) => waiting.extend(more),
            (_, input) => inbox.push(input),
        }
        drop(inbox);
        self.schedule();
    }

    /// Closes the node; a notice says when it is done.
    pub fn close(&self) {
        self.closing.set(true);
        self.set_faults(false, self.isolated.get());
        self.enqueue(Input::Close);
    }

    /// Takes in a perform.
    pub fn perform(&self, perform: Perform) {
        self.enqueue(Input::Perform(vec![perform]));
    }

    fn schedule(&self) {
        if !self.pumping.get() && !self.scheduled.replace(true) {
            queue_microtask(&self.microtask);
        }
    }

    /// Does everything that waits, and sends what comes of it.
    fn pump(&self) {
        if self.paused.get() || self.pumping.replace(true) {
            return;
        }
        loop {
            let inputs = std::mem::take(&mut *self.inbox.borrow_mut());
            let troubles = std::mem::take(&mut *self.troubles.borrow_mut());
            let moved = self.moved.take();
            if inputs.is_empty() && troubles.is_empty() && !moved {
                break;
            }
            if moved {
                self.notify(Notice::Status);
            }
            for failure in troubles {
                self.notify(Notice::Error(failure));
            }
            for input in inputs {
                self.handle(input);
            }
            self.flush();
        }
        self.arm();
        self.pumping.set(false);
    }

    /// Gives one input to the core and runs the user code that it asks for.
    fn handle(&self, input: Input<JsValue>) {
        let mut output = self.core.borrow_mut().handle(now(), input);
        loop {
            let Output { settled, notices, call, .. } = output;
            settled.into_iter().for_each(|settled| self.settle(settled));
            for notice in notices {
                // What was said before the end is sent before the channel goes.
                if notice == Notice::Closed {
                    self.flush();
                    if let Some(channel) = self.channel.take() {
                        channel.close();
                    }
                    let this = self.this.as_ptr();
                    let gone = LIVE.with_borrow_mut(|live| {
                        let position = live.iter().position(|host| Rc::as_ptr(host) == this);
                        position.map(|position| live.swap_remove(position))
                    });
                    // Whoever called this method holds another reference.
                    drop(gone);
                }
                self.notify(notice);
            }
            let Some(call) = call else { return };
            let returned = call.run(&mut JsMachine(&self.hooks));
            output = self.core.borrow_mut().handle(now(), Input::Returned(returned));
        }
    }

    fn flush(&self) {
        let frames = self.core.borrow_mut().take_frames();
        if self.isolated.get() {
            return;
        }
        let channel = self.channel.borrow();
        let Some(channel) = channel.as_ref() else { return };
        for (to, frame) in frames {
            channel.send(to.as_deref(), &frame);
        }
    }

    fn settle(&self, settled: Settled) {
        let ticket = settled.ticket as f64;
        // User code is called here; what it throws is its own affair, and the shell reports it.
        let _ = match settled.outcome {
            Outcome::Nothing => self.hooks.nothing(ticket),
            Outcome::Failed(failure) => self.hooks.failed(ticket, &failure.code, &failure.message),
            Outcome::Action(action) => {
                self.hooks.action(ticket, &String::from_utf8_lossy(action.as_slice()))
            }
        };
    }

    fn notify(&self, notice: Notice) {
        let _ = match notice {
            Notice::Leader => self.hooks.notice("leader", "", ""),
            Notice::Status => self.hooks.notice("status", "", ""),
            Notice::Members => self.hooks.notice("members", "", ""),
            Notice::Closed => self.hooks.notice("closed", "", ""),
            Notice::Error(failure) => self.hooks.notice("error", &failure.code, &failure.message),
        };
    }

    /// Sets the timer to the next deadline. A timer that rings too early is left alone: deadlines
    /// mostly move away, and it asks again when it rings.
    fn arm(&self) {
        let Some(deadline) = self.core.borrow().deadline() else {
            self.timer.take();
            return;
        };
        if self.timer.borrow().as_ref().is_some_and(|(at, _)| *at <= deadline) {
            return;
        }
        let pause = deadline.saturating_sub(now()).min(1 << 30) as u32;
        let weak = self.this.clone();
        let timeout = Timeout::new(pause, move || {
            if let Some(host) = weak.upgrade() {
                // This closure is what the timer holds: it is dropped when this has returned.
                let ringing = host.timer.take();
                host.inbox.borrow_mut().push(Input::Tick);
                host.pump();
                drop(ringing);
            }
        });
        self.timer.replace(Some((deadline, timeout)));
    }
}
