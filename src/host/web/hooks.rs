//! The functions of the package's shell (`www/package/shell.js`) that the core calls.

use wasm_bindgen::prelude::*;

use crate::store::Failure;

#[wasm_bindgen]
extern "C" {
    /// The shell's object with these functions.
    pub type Hooks;
    /// Runs a method on arguments in JSON. Returns the action in JSON, or nothing.
    #[wasm_bindgen(method, catch)]
    pub fn judge(this: &Hooks, method: &str, args: &str) -> Result<Option<String>, JsValue>;
    /// Runs the reducer on a state and an action in JSON. Returns the new state.
    #[wasm_bindgen(method, catch)]
    pub fn reduce(this: &Hooks, state: &JsValue, action: &str) -> Result<JsValue, JsValue>;
    /// Serializes a state to JSON.
    #[wasm_bindgen(method, catch)]
    pub fn save(this: &Hooks, state: &JsValue) -> Result<String, JsValue>;
    /// Checks whether a state is what JSON carries.
    #[wasm_bindgen(method, catch)]
    pub fn check(this: &Hooks, state: &JsValue) -> Result<(), JsValue>;
    /// Makes a state of this version of the application of one of an older version. Returns it in
    /// JSON.
    #[wasm_bindgen(method, catch)]
    pub fn migrate(this: &Hooks, state: &JsValue, from: f64) -> Result<String, JsValue>;
    /// Reports that the state here may differ from the other nodes': the index of the entry at
    /// fault, its action in JSON if one is known, and what is wrong.
    #[wasm_bindgen(method, catch)]
    pub fn diverged(
        this: &Hooks,
        index: f64,
        action: Option<String>,
        code: &str,
        message: &str,
    ) -> Result<(), JsValue>;
    /// Deserializes a state from JSON. `old`: an older version of the application has saved it.
    #[wasm_bindgen(method, catch)]
    pub fn load(this: &Hooks, json: &str, old: bool) -> Result<JsValue, JsValue>;
    /// The action at this index was committed here, or a snapshot that ends there was loaded.
    #[wasm_bindgen(method, catch)]
    pub fn committed(this: &Hooks, index: f64) -> Result<(), JsValue>;
    /// An action was committed: index and term of its entry, the node that performed it, and the
    /// action in JSON. For a snapshot there is no node and no action. Called only after
    /// `CoreNode.watch`.
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
    /// A perform ended without an action, or a read succeeded.
    #[wasm_bindgen(method, catch)]
    pub fn nothing(this: &Hooks, ticket: f64) -> Result<(), JsValue>;
    /// A perform or a read failed.
    #[wasm_bindgen(method, catch)]
    pub fn failed(this: &Hooks, ticket: f64, code: &str, message: &str) -> Result<(), JsValue>;
    /// Asks storage or locks to do something. The answer goes to `CoreNode.answer`.
    #[wasm_bindgen(method, catch)]
    pub fn ask(
        this: &Hooks,
        what: &str,
        generation: f64,
        node: &str,
        value: &JsValue,
    ) -> Result<(), JsValue>;
    /// Writes a batch of a node of an elastic cluster. The answer is `persisted`, or what went
    /// wrong.
    #[wasm_bindgen(method, catch)]
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
    ) -> Result<(), JsValue>;
    /// Appends a record to the file of a fixed cluster's node. The answer goes to
    /// `CoreNode.recorded`.
    #[wasm_bindgen(method, catch)]
    pub fn record(this: &Hooks, seq: f64, begins: bool, bytes: Vec<u8>) -> Result<(), JsValue>;
    /// Asks for a call of `CoreNode.turn`: at the end of this turn, or, if a timer has fired
    /// (`due`), once its function has returned. JavaScript enters the core only through functions
    /// of the shell, because these catch what a trap throws.
    #[wasm_bindgen(method, catch)]
    pub fn turn(this: &Hooks, due: bool) -> Result<(), JsValue>;
    /// Asks for a call of `CoreNode.turn` after so many ms, by a timer that is not slow in a hidden
    /// page.
    #[wasm_bindgen(method, catch)]
    pub fn wake(this: &Hooks, ms: f64) -> Result<(), JsValue>;
    /// Reports something to the user: an event of this kind, and for an error its code and message.
    #[wasm_bindgen(method, catch)]
    pub fn notice(this: &Hooks, kind: &str, code: &str, message: &str) -> Result<(), JsValue>;
}

/// A failure as an Error with a `code`.
pub fn error(failure: &Failure) -> JsValue {
    let error = js_sys::Error::new(&failure.message);
    let _ = js_sys::Reflect::set(&error, &"code".into(), &failure.code.as_str().into());
    error.into()
}

/// A thrown value as a failure. `code` is used if the value has no code.
pub(super) fn failure(thrown: &JsValue, code: &str) -> Failure {
    let own = js_sys::Reflect::get(thrown, &"code".into()).ok().and_then(|c| c.as_string());
    Failure::new(own.as_deref().unwrap_or(code), message_of(thrown))
}

/// The message of a thrown value.
pub(super) fn message_of(thrown: &JsValue) -> String {
    let message = js_sys::Reflect::get(thrown, &"message".into());
    message.ok().and_then(|m| m.as_string()).unwrap_or_else(|| {
        thrown.as_string().unwrap_or_else(|| "something that is no Error was thrown".into())
    })
}
