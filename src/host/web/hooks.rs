//! What the package's shell (`www/package/shell.js`) does for the core.

use wasm_bindgen::prelude::*;

use crate::store::Failure;

#[wasm_bindgen]
extern "C" {
    /// What the shell does for the core: the user's methods and reducer, and settling.
    pub type Hooks;
    /// Runs a method on arguments in JSON; an action in JSON, or nothing.
    #[wasm_bindgen(method, catch)]
    pub fn judge(this: &Hooks, method: &str, args: &str) -> Result<Option<String>, JsValue>;
    /// Runs the reducer on an action in JSON.
    #[wasm_bindgen(method, catch)]
    pub fn reduce(this: &Hooks, state: &JsValue, action: &str) -> Result<JsValue, JsValue>;
    /// The state in JSON.
    #[wasm_bindgen(method, catch)]
    pub fn save(this: &Hooks, state: &JsValue) -> Result<String, JsValue>;
    /// A state from JSON.
    #[wasm_bindgen(method, catch)]
    pub fn load(this: &Hooks, json: &str) -> Result<JsValue, JsValue>;
    /// An action was committed here.
    #[wasm_bindgen(method, catch)]
    pub fn committed(this: &Hooks, index: f64) -> Result<(), JsValue>;
    /// What was committed: where, behind which node it was performed, and the action in JSON; neither for
    /// a snapshot. Only after `CoreNode.watch`.
    #[wasm_bindgen(method, catch)]
    pub fn entry(
        this: &Hooks,
        index: f64,
        term: f64,
        node: Option<String>,
        action: Option<String>,
    ) -> Result<(), JsValue>;
    /// A perform ended with an action in JSON.
    #[wasm_bindgen(method, catch)]
    pub fn action(this: &Hooks, ticket: f64, action: &str) -> Result<(), JsValue>;
    /// A perform ended without an action, or a read is as new as it must be.
    #[wasm_bindgen(method, catch)]
    pub fn nothing(this: &Hooks, ticket: f64) -> Result<(), JsValue>;
    /// A perform or a read failed.
    #[wasm_bindgen(method, catch)]
    pub fn failed(this: &Hooks, ticket: f64, code: &str, message: &str) -> Result<(), JsValue>;
    /// Asks something of storage or locks; `CoreNode.answer` takes the answer.
    #[wasm_bindgen(method)]
    pub fn ask(this: &Hooks, what: &str, generation: f64, node: &str, value: &JsValue);
    /// Writes a batch; answered with `persisted`, or with what went wrong.
    #[wasm_bindgen(method)]
    #[allow(clippy::too_many_arguments)]
    pub fn write(
        this: &Hooks,
        generation: f64,
        node: &str,
        epoch: f64,
        seq: f64,
        hard: Option<Vec<u8>>,
        snapshot: Option<Vec<u8>>,
        first: Option<f64>,
        entries: Option<Vec<u8>>,
    );
    /// Writes a record of a node of a fixed cluster; answered with `CoreNode.recorded`.
    #[wasm_bindgen(method)]
    pub fn record(this: &Hooks, seq: f64, begins: bool, bytes: Vec<u8>);
    /// Wants `CoreNode.tick` in so many ms, from a timer that is not slow in a hidden page.
    #[wasm_bindgen(method, catch)]
    pub fn wake(this: &Hooks, ms: f64) -> Result<(), JsValue>;
    /// Something happened.
    #[wasm_bindgen(method, catch)]
    pub fn notice(this: &Hooks, kind: &str, code: &str, message: &str) -> Result<(), JsValue>;
}

/// A failure as an Error with a `code`.
pub fn error(failure: &Failure) -> JsValue {
    let error = js_sys::Error::new(&failure.message);
    let _ = js_sys::Reflect::set(&error, &"code".into(), &failure.code.as_str().into());
    error.into()
}

/// What somebody threw, as a failure. `code` is for what has none.
pub(super) fn failure(thrown: &JsValue, code: &str) -> Failure {
    let own = js_sys::Reflect::get(thrown, &"code".into()).ok().and_then(|c| c.as_string());
    Failure::new(own.as_deref().unwrap_or(code), message_of(thrown))
}

/// The message of what somebody threw.
pub(super) fn message_of(thrown: &JsValue) -> String {
    let message = js_sys::Reflect::get(thrown, &"message".into());
    message.ok().and_then(|m| m.as_string()).unwrap_or_else(|| {
        thrown.as_string().unwrap_or_else(|| "something that is no Error was thrown".into())
    })
}
