//! The host in a browser or in Node.js: gives inputs to a [`Host`] and executes its effects.
//!
//! User code runs only while nothing of Rust is borrowed, and it may call back into the handle.
//! Such calls put inputs into the inbox, which the outermost [`WebHost::pump`] empties. The inputs
//! of one turn of the event loop are handled together, and all messages of a turn to one node are
//! one frame.

mod answers;
mod channel;
mod hooks;
mod machine;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use gloo_timers::callback::Timeout;
use wasm_bindgen::prelude::*;

use self::answers::read_answer;
pub use self::channel::Channel;
use self::hooks::message_of;
pub use self::hooks::{Hooks, error};
use self::machine::JsMachine;
use super::core::Host;
use super::elastic::{name, number};
use super::options::Options;
use super::types::{Effect, Input, Notice, Output};
use crate::elastic;
use crate::raft::{Blob, Time};
use crate::storage::Batch;
use crate::store::{Call, Committed, Failure, Outcome, Perform, Return, Settled};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// The longest time for which a timer is set, in ms. A timer of a node that has crashed cannot be
/// removed, and keeps a Node.js process alive until it has fired.
const LONGEST_TIMER: Time = 10_000;

/// Milliseconds on a clock that never goes back.
fn now() -> Time {
    performance_now() as Time
}

thread_local! {
    /// Every host that is not closed. A host must live until it is closed, even if the page has
    /// dropped its last reference to the handle.
    static LIVE: RefCell<Vec<Rc<WebHost>>> = const { RefCell::new(Vec::new()) };
}

/// A host with its JavaScript objects.
pub struct WebHost {
    this: Weak<WebHost>,
    core: RefCell<Host<JsValue>>,
    /// The effects that the next [`WebHost::flush`] carries out.
    effects: RefCell<Vec<Effect>>,
    hooks: Hooks,
    /// `None` once the host is closed.
    channel: RefCell<Option<Channel>>,
    inbox: RefCell<Vec<Input<JsValue>>>,
    /// [`WebHost::pump`] runs now.
    pumping: Cell<bool>,
    /// The shell was asked to call [`WebHost::turn`].
    scheduled: Cell<bool>,
    /// The timer, and the deadline for which it was set.
    timer: RefCell<Option<(Time, Timeout)>>,
    paused: Cell<bool>,
    isolated: Cell<bool>,
    closing: Cell<bool>,
    /// The page is hidden, so its timers are slow.
    hidden: Cell<bool>,
    /// The channel was connected or disconnected, which is not reported yet.
    moved: Cell<bool>,
    /// The state when subscribers were called last, or the first one.
    shown: RefCell<JsValue>,
    /// The shell wants [`Hooks::entry`] for everything that is committed.
    watched: Cell<bool>,
}

impl WebHost {
    /// Starts a host.
    ///
    /// # Errors
    /// When the channel cannot be opened.
    pub fn start(
        options: Options,
        channel: Channel,
        hooks: Hooks,
        initial: JsValue,
        hidden: bool,
    ) -> Result<Rc<Self>, JsValue> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| JsValue::from(error.to_string()))?;
        let (now, seed) = (now(), u64::from_le_bytes(seed));
        let core = Host::new(options.settings, initial.clone(), !hidden, now, seed);
        let id = core.id();
        let host = Rc::new_cyclic(|this: &Weak<Self>| Self {
            this: this.clone(),
            core: RefCell::new(core),
            effects: RefCell::default(),
            hooks,
            channel: RefCell::default(),
            inbox: RefCell::default(),
            pumping: Cell::new(false),
            scheduled: Cell::new(false),
            timer: RefCell::default(),
            paused: Cell::new(false),
            isolated: Cell::new(false),
            closing: Cell::new(false),
            hidden: Cell::new(hidden),
            moved: Cell::new(false),
            shown: RefCell::new(initial.clone()),
            watched: Cell::new(false),
        });
        channel.connect(&id, &options.room)?;
        host.channel.replace(Some(channel));
        LIVE.with_borrow_mut(|live| live.push(host.clone()));
        host.enqueue(Input::Start);
        Ok(host)
    }

    /// A frame has arrived.
    pub fn receive(&self, frame: Vec<u8>) {
        if !self.isolated.get() {
            self.enqueue(Input::Frame(frame));
        }
    }

    /// The channel was connected or disconnected.
    pub fn changed(&self) {
        self.moved.set(true);
        self.schedule();
    }

    /// The core, for reading.
    pub fn core(&self) -> std::cell::Ref<'_, Host<JsValue>> {
        self.core.borrow()
    }

    /// Whether frames can travel now.
    pub fn is_connected(&self) -> bool {
        !self.isolated.get() && self.channel.borrow().as_ref().is_some_and(Channel::is_open)
    }

    /// Whether the node is paused, and whether it is isolated.
    pub fn faults(&self) -> (bool, bool) {
        (self.paused.get(), self.isolated.get())
    }

    /// Sets whether the node is paused, as if its tab were frozen, and whether it is isolated from
    /// the other nodes.
    pub fn set_faults(&self, paused: bool, isolated: bool) {
        // A paused node could not close.
        let paused = paused && !self.closing.get();
        self.isolated.set(isolated);
        if self.paused.replace(paused) && !paused {
            self.enqueue(Input::Tick);
        }
        if paused {
            self.timer.take();
        }
    }

    /// Puts an input into the inbox. It is handled at the end of this turn.
    pub fn enqueue(&self, input: Input<JsValue>) {
        let mut inbox = self.inbox.borrow_mut();
        // Performs of one turn become one input, so that the leader makes one append of them.
        match (inbox.last_mut(), input) {
            (Some(Input::Perform(waiting)), Input::Perform(more)) => waiting.extend(more),
            (_, input) => inbox.push(input),
        }
        drop(inbox);
        self.schedule();
    }

    /// Closes the host. [`Notice::Closed`] says when it is closed.
    pub fn close(&self) {
        self.closing.set(true);
        self.set_faults(false, self.isolated.get());
        self.enqueue(Input::Close);
    }

    /// Puts a perform into the inbox.
    pub fn perform(&self, perform: Perform) {
        self.enqueue(Input::Perform(vec![perform]));
    }

    fn schedule(&self) {
        if !self.pumping.get() && !self.scheduled.get() {
            // If the shell throws (its stack may be full), the next input or timer asks again.
            self.scheduled.set(self.hooks.turn(false).is_ok());
        }
    }

    /// What [`Hooks::turn`] asked for, or a timer that was set with [`Hooks::wake`] has fired
    /// (`due`).
    pub fn turn(&self, due: bool) {
        if due {
            // Also when the page's own timer is late: while it is set, `arm` would not ask for
            // another.
            self.timer.take();
            self.inbox.borrow_mut().push(Input::Tick);
        } else {
            self.scheduled.set(false);
        }
        self.pump();
    }

    /// Handles everything in the inbox, and sends the frames and carries out the effects of that.
    fn pump(&self) {
        if self.paused.get() || self.pumping.replace(true) {
            return;
        }
        loop {
            let inputs = std::mem::take(&mut *self.inbox.borrow_mut());
            let moved = self.moved.take();
            if inputs.is_empty() && !moved {
                break;
            }
            if moved {
                self.notify(Notice::Status);
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
            let Output { settled, notices, effects, call, .. } = output;
            self.effects.borrow_mut().extend(effects);
            settled.into_iter().for_each(|settled| self.settle(settled));
            for notice in notices {
                // The last frames must be sent before the channel is disconnected.
                if notice == Notice::Closed {
                    self.flush();
                    if let Some(channel) = self.channel.take() {
                        let _ = channel.disconnect();
                    }
                    let this = self.this.as_ptr();
                    let closed = LIVE.with_borrow_mut(|live| {
                        let position = live.iter().position(|host| Rc::as_ptr(host) == this);
                        position.map(|position| live.swap_remove(position))
                    });
                    // The caller of this method holds another reference, so `self` stays valid.
                    drop(closed);
                }
                self.notify(notice);
            }
            let Some(call) = call else { return };
            self.core.borrow_mut().enter();
            let returned = match &call {
                Call::Committed(committed) if !self.show(committed) => Return::Done,
                _ => call.run(&mut JsMachine(&self.hooks)),
            };
            output = self.core.borrow_mut().handle(now(), Input::Returned(returned));
        }
    }

    /// Calls [`Hooks::entry`], if the shell wants that. Returns whether to call the subscribers: not
    /// for a state that was loaded and is the one that they know. So they do not hear of the
    /// cluster's first state if it is that of this host.
    fn show(&self, Committed { at, action }: &Committed) -> bool {
        let state = self.core.borrow().committed().clone();
        let is_known = self.shown.replace(state.clone()) == state;
        if action.is_none() && is_known {
            return false;
        }
        if !self.watched.get() {
            return true;
        }
        // Members of a fixed cluster have names. The ids of an elastic cluster follow from the
        // numbers.
        let by = action.as_ref().map(|(by, _)| match by.name.len() {
            0 => name(by.id),
            _ => text(&by.name),
        });
        let action = action.as_ref().map(|(_, action)| text(action));
        let _ = self.hooks.entry(at.index as f64, at.term as f64, by, action);
        true
    }

    /// Sets whether to call [`Hooks::entry`] for everything that is committed.
    pub fn watch(&self, watched: bool) {
        self.watched.set(watched);
    }

    fn flush(&self) {
        let frames = self.core.borrow_mut().take_frames();
        let channel = self.channel.borrow();
        if let Some(channel) = channel.as_ref().filter(|_| !self.isolated.get()) {
            for (to, frame) in frames {
                channel.post(to.as_deref(), &frame);
            }
        }
        for effect in std::mem::take(&mut *self.effects.borrow_mut()) {
            match effect {
                Effect::Listen(id) => channel.iter().for_each(|channel| drop(channel.listen(&id))),
                Effect::Unlisten(id) => {
                    channel.iter().for_each(|channel| drop(channel.unlisten(&id)));
                }
                Effect::Record { seq, begins, bytes } => {
                    if let Err(thrown) = self.hooks.record(seq as f64, begins, bytes) {
                        let message = message_of(&thrown);
                        self.enqueue(Input::Failed(Failure::new("STORAGE_FAILED", message)));
                    }
                }
                Effect::Write { generation, node, epoch, persist } => {
                    let Batch { hard, snapshot, first, entries } = Batch::new(&persist);
                    let (first, epoch) = (first.map(|first| first as f64), epoch as f64);
                    let seq = persist.seq as f64;
                    let at = (f64::from(generation), name(node));
                    let hooks = &self.hooks;
                    let written =
                        hooks.write(at.0, &at.1, epoch, seq, hard, snapshot, first, entries);
                    self.check_storage(generation, written);
                }
                Effect::Elastic { generation, effect } => {
                    let asked = self.ask(generation, effect);
                    self.check_storage(generation, asked);
                }
            }
        }
    }

    /// Asks the shell's storage or locks to do something.
    fn ask(&self, generation: u32, effect: elastic::Effect) -> Result<(), JsValue> {
        use elastic::Effect as Ask;
        let hex = |incarnation: u64| JsValue::from(format!("{incarnation:016x}"));
        let (what, node, value) = match effect {
            Ask::ReadRegistry => ("read", 0, JsValue::UNDEFINED),
            Ask::Found(registry) => ("found", registry.nodes[0], hex(registry.incarnation)),
            Ask::Register { node, incarnation } => ("register", node, hex(incarnation)),
            Ask::TryLock(node) => ("try", node, JsValue::UNDEFINED),
            Ask::AwaitLock(node) => ("await", node, JsValue::UNDEFINED),
            Ask::StealLock(node) => ("steal", node, JsValue::UNDEFINED),
            Ask::Unlock(node) => ("unlock", node, JsValue::UNDEFINED),
            Ask::UnlockAll => ("unlockAll", 0, JsValue::UNDEFINED),
            Ask::Load(node) => ("load", node, JsValue::UNDEFINED),
            Ask::Delete(node) => ("delete", node, JsValue::UNDEFINED),
            Ask::DeleteAll => ("deleteAll", 0, JsValue::UNDEFINED),
            Ask::Create { node, incarnation, saved } => {
                let Batch { hard, entries, .. } = Batch::of(&saved);
                let bytes = |bytes: Option<Vec<u8>>| {
                    bytes.map_or(JsValue::UNDEFINED, |b| js_sys::Uint8Array::from(&b[..]).into())
                };
                let record = js_sys::Array::of3(&hex(incarnation), &bytes(hard), &bytes(entries));
                ("create", node, record.into())
            }
            // The host handles the other effects itself.
            _ => return Ok(()),
        };
        self.hooks.ask(what, f64::from(generation), &name(node), &value)
    }

    /// Storage or locks that throw instead of answering have failed: otherwise the node would wait
    /// for an answer for ever, without a word to the user.
    fn check_storage(&self, generation: u32, asked: Result<(), JsValue>) {
        if let Err(thrown) = asked {
            let reason = elastic::StopReason::StorageFailed(message_of(&thrown));
            let input = elastic::Input::Failed(reason);
            self.enqueue(Input::Elastic { generation, input });
        }
    }

    /// The file that the storage of a fixed cluster's node has, if any.
    pub fn restored(&self, file: Option<Vec<u8>>) {
        self.enqueue(Input::Restored(file));
    }

    /// Every record up to this one is durable.
    pub fn recorded(&self, seq: f64) {
        self.enqueue(Input::Persisted { generation: 0, node: 0, seq: seq as u64 });
    }

    /// The storage of a fixed cluster's node has failed.
    pub fn broken(&self, code: &str, message: String) {
        self.enqueue(Input::Failed(Failure::new(code, message)));
    }

    /// An answer of storage or locks. `what` is its kind.
    ///
    /// # Errors
    /// When there is no such answer: a bug of the shell.
    pub fn answer(
        &self,
        what: &str,
        generation: f64,
        node: &str,
        value: &JsValue,
    ) -> Result<(), JsValue> {
        let bad = || JsValue::from(js_sys::Error::new(&format!("`{what}` is no such answer")));
        let generation = generation as u32;
        if what == "persisted" {
            let node = number(node).ok_or_else(bad)?;
            let seq = value.as_f64().ok_or_else(bad)? as u64;
            self.enqueue(Input::Persisted { generation, node, seq });
        } else {
            let input = read_answer(what, node, value).ok_or_else(bad)?;
            self.enqueue(Input::Elastic { generation, input });
        }
        Ok(())
    }

    /// Sets whether the page is visible. A hidden page's timers are slow, so [`Hooks::wake`] is
    /// used then.
    pub fn set_visible(&self, visible: bool) {
        self.hidden.set(!visible);
        self.timer.take();
        self.enqueue(Input::Visible(visible));
    }

    /// Stops all nodes and releases everything before this returns, because the browser may freeze
    /// the page then.
    pub fn suspend(&self) {
        self.inbox.borrow_mut().push(Input::Suspend);
        self.pump();
        // A message to a page in the back/forward cache makes the browser evict the page.
        self.channel.borrow().iter().for_each(|channel| drop(channel.pause()));
    }

    /// Starts again after [`WebHost::suspend`].
    pub fn resume(&self) {
        self.channel.borrow().iter().for_each(|channel| drop(channel.resume()));
        self.enqueue(Input::Start);
    }

    fn settle(&self, settled: Settled) {
        let ticket = settled.ticket as f64;
        // User code runs here. The shell reports what it throws.
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
            Notice::State => self.hooks.notice("state", "", ""),
            Notice::Status => self.hooks.notice("status", "", ""),
            Notice::Members => self.hooks.notice("members", "", ""),
            Notice::Closed => self.hooks.notice("closed", "", ""),
            Notice::Outdated(release) => self.hooks.notice("outdated", &release.to_string(), ""),
            Notice::Diverged { index, action, failure } => {
                let action = action.map(|action| text(&action));
                self.hooks.diverged(index as f64, action, &failure.code, &failure.message)
            }
            Notice::Error(failure) => self.hooks.notice("error", &failure.code, &failure.message),
        };
    }

    /// Sets the timer to the next deadline. A timer that is set for an earlier time is left alone,
    /// because deadlines mostly move into the future; when it fires, the next one is set.
    fn arm(&self) {
        let Some(deadline) = self.core.borrow().deadline() else {
            self.timer.take();
            return;
        };
        if self.timer.borrow().as_ref().is_some_and(|(at, _)| *at <= deadline) {
            return;
        }
        let pause = deadline.saturating_sub(now()).min(LONGEST_TIMER) as u32;
        if self.hidden.get() {
            let _ = self.hooks.wake(f64::from(pause));
        }
        let weak = self.this.clone();
        let timeout = Timeout::new(pause, move || {
            // Nothing more is done here: nobody would catch a trap. And the timer owns this
            // closure, so it must not be dropped before the closure returns.
            if let Some(host) = weak.upgrade() {
                let _ = host.hooks.turn(true);
            }
        });
        self.timer.replace(Some((deadline, timeout)));
    }
}

fn text(blob: &Blob) -> String {
    String::from_utf8_lossy(blob.as_slice()).into_owned()
}
