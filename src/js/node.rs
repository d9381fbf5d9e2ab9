//! The handle of a node.

use std::rc::Rc;

use wasm_bindgen::prelude::*;

use crate::host::options::{self, Value};
use crate::host::types::{Input, Phase};
use crate::host::web::{Channel, Hooks, WebHost, error};
use crate::raft::RoleName;
use crate::store::Perform;

/// The handle of a node, for the shell. Every method may be called while user code runs.
#[wasm_bindgen]
pub struct CoreNode(Rc<WebHost>);

#[wasm_bindgen]
impl CoreNode {
    /// Starts a node. `options` holds plain values only.
    ///
    /// # Errors
    /// An Error with a `code` when an option is missing or wrong; what the channel throws when it
    /// cannot be opened.
    #[wasm_bindgen(constructor)]
    pub fn new(
        options: &JsValue,
        channel: Channel,
        hooks: Hooks,
        initial: JsValue,
        hidden: bool,
    ) -> Result<CoreNode, JsValue> {
        let options = options::parse(&plain(options, 3)).map_err(|failure| error(&failure))?;
        WebHost::start(options, channel, hooks, initial, hidden).map(Self)
    }

    /// Performs a method on arguments in JSON, with a timeout in ms.
    pub fn perform(&self, ticket: f64, method: String, args: String, timeout: Option<f64>) {
        let args = args.as_str().into();
        let timeout = timeout.map(|ms| ms as u64);
        self.0.perform(Perform { ticket: ticket as u64, method, args, timeout });
    }

    /// A linearizable read: settled when the committed state here is at least as new as the
    /// cluster's is now.
    pub fn read(&self, ticket: f64) {
        self.0.enqueue(Input::Read { ticket: ticket as u64 });
    }

    /// A frame has arrived.
    pub fn receive(&self, frame: Vec<u8>) {
        self.0.receive(frame);
    }

    /// The channel was connected or disconnected.
    pub fn changed(&self) {
        self.0.changed();
    }

    /// Hands leadership over and closes. The notice `closed` says when that is done.
    pub fn close(&self) {
        self.0.close();
    }

    /// Sets whether the node is paused, as if its tab were frozen, and whether it is isolated from
    /// the other nodes.
    pub fn simulate(&self, paused: bool, isolated: bool) {
        self.0.set_faults(paused, isolated);
    }

    /// Sets whether to call [`Hooks::entry`] for everything that is committed.
    pub fn watch(&self, watched: bool) {
        self.0.watch(watched);
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
        self.0.answer(what, generation, node, value)
    }

    /// Whether a file begins with a complete record. A file that does not was never finished.
    /// A method although it needs no node, so that it is called like everything else of the core.
    #[wasm_bindgen(js_name = isWhole)]
    pub fn is_whole(&self, file: &[u8]) -> bool {
        crate::storage::file::is_whole(file)
    }

    /// The storage of the node is open. `file` is what it had, if anything.
    pub fn restored(&self, file: Option<Vec<u8>>) {
        self.0.restored(file);
    }

    /// Every record up to this one is durable.
    pub fn recorded(&self, seq: f64) {
        self.0.recorded(seq);
    }

    /// The storage of the node has failed.
    pub fn broken(&self, code: &str, message: String) {
        self.0.broken(code, message);
    }

    /// Sets whether the page is visible.
    pub fn visible(&self, visible: bool) {
        self.0.set_visible(visible);
    }

    /// Stops all nodes and releases everything before this returns, because the browser may freeze
    /// the page then.
    pub fn suspend(&self) {
        self.0.suspend();
    }

    /// Starts again after [`CoreNode::suspend`].
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Ends the cluster and deletes its storage.
    pub fn destroy(&self) {
        self.0.enqueue(Input::Destroy);
    }

    /// What [`Hooks::turn`] asked for, or a timer that was set with [`Hooks::wake`] has fired
    /// (`due`).
    pub fn turn(&self, due: bool) {
        self.0.turn(due);
    }

    /// The committed state.
    pub fn state(&self) -> JsValue {
        self.0.core().committed().clone()
    }

    /// The provisional state.
    pub fn provisional(&self) -> JsValue {
        self.0.core().provisional().clone()
    }

    /// The status, as `www/package` documents it.
    pub fn status(&self) -> js_sys::Object {
        let core = self.0.core();
        let status = core.status();
        let object = js_sys::Object::new();
        let phase = match status.phase {
            Phase::Forming => "forming",
            Phase::Member => "member",
            Phase::Outdated => "outdated",
            Phase::Refused => "refused",
            Phase::Closing => "closing",
            Phase::Closed => "closed",
        };
        let role = match status.role {
            RoleName::Leader => "leader",
            RoleName::Candidate | RoleName::PreCandidate => "candidate",
            RoleName::Follower if status.learners.contains(&core.id()) => "learner",
            RoleName::Follower => "follower",
        };
        let (paused, isolated) = self.0.faults();
        set(&object, "id", core.id());
        set(&object, "phase", phase);
        set(&object, "role", role);
        set(&object, "term", status.term as f64);
        set(&object, "leaderId", status.leader.as_deref().map_or(JsValue::NULL, JsValue::from));
        set(&object, "commitIndex", status.commit as f64);
        set(&object, "lastApplied", status.applied as f64);
        set(&object, "lastIndex", status.last as f64);
        set(&object, "snapshotIndex", status.snapshot as f64);
        for (key, ids) in [
            ("members", &status.members),
            ("learners", &status.learners),
            ("adopted", &status.adopted),
            ("hidden", &status.hidden),
            ("running", &status.running),
        ] {
            set(&object, key, ids.iter().map(JsValue::from).collect::<js_sys::Array>());
        }
        set(&object, "clusterSize", status.size as f64);
        set(&object, "present", status.present as f64);
        set(&object, "pending", status.waiting as f64);
        set(&object, "connected", self.0.is_connected());
        set(&object, "paused", paused);
        set(&object, "isolated", isolated);
        let matched = js_sys::Object::new();
        for (id, index) in &status.matched {
            set(&matched, id, *index as f64);
        }
        set(&object, "matchIndex", matched);
        let counters = js_sys::Object::new();
        set(&counters, "framesSent", status.counters.sent as f64);
        set(&counters, "framesReceived", status.counters.received as f64);
        set(&counters, "badFrames", status.counters.bad_frames as f64);
        set(&counters, "foreignFrames", status.counters.foreign_frames as f64);
        set(&counters, "invalidMessages", status.counters.invalid_messages as f64);
        set(&object, "counters", counters);
        object
    }
}

/// Reads options from a JavaScript value. Deeper values than `depth` levels count as missing: no
/// option lies deeper.
fn plain(value: &JsValue, depth: u8) -> Value {
    if let Some(value) = value.as_bool() {
        Value::Bool(value)
    } else if let Some(value) = value.as_f64() {
        Value::Number(value)
    } else if let Some(value) = value.as_string() {
        Value::Text(value)
    } else if depth == 0 || !value.is_object() {
        Value::Nothing
    } else if let Some(list) = value.dyn_ref::<js_sys::Array>() {
        Value::List(list.iter().map(|value| plain(&value, depth - 1)).collect())
    } else {
        let entry = |pair: JsValue| {
            let pair: js_sys::Array = pair.unchecked_into();
            Some((pair.get(0).as_string()?, plain(&pair.get(1), depth - 1)))
        };
        let entries = js_sys::Object::entries(value.unchecked_ref());
        Value::Object(entries.iter().filter_map(entry).collect())
    }
}

fn set(object: &js_sys::Object, key: &str, value: impl Into<JsValue>) {
    // This fails only on frozen objects and proxies, and the object is new.
    let _ = js_sys::Reflect::set(object, &key.into(), &value.into());
}
