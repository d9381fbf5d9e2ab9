//! The user's methods and reducer as a [`Machine`]. States are JavaScript values; actions travel
//! as JSON.

use wasm_bindgen::JsValue;

use super::hooks::{Hooks, failure};
use crate::raft::{Blob, Index};
use crate::store::{Failure, Machine};

/// A machine that calls the shell.
pub(super) struct JsMachine<'a>(pub(super) &'a Hooks);

fn text(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| Failure::new("NOT_JSON", "the bytes are not JSON"))
}

impl Machine for JsMachine<'_> {
    type State = JsValue;

    fn judge(&mut self, method: &str, args: &[u8]) -> Result<Option<Blob>, Failure> {
        let judged = self.0.judge(method, text(args)?);
        let action = judged.map_err(|error| failure(&error, "METHOD_FAILED"))?;
        Ok(action.map(|action| action.as_str().into()))
    }

    fn reduce(&mut self, state: &JsValue, action: &[u8]) -> Result<JsValue, Failure> {
        let reduced = self.0.reduce(state, text(action)?);
        reduced.map_err(|error| failure(&error, "REDUCER_FAILED"))
    }

    fn check(&mut self, state: &JsValue) -> Result<(), Failure> {
        self.0.check(state).map_err(|error| failure(&error, "NOT_JSON"))
    }

    fn migrate(&mut self, state: &JsValue, from: u32) -> Result<Vec<u8>, Failure> {
        let migrated = self.0.migrate(state, f64::from(from));
        Ok(migrated.map_err(|error| failure(&error, "MIGRATION_FAILED"))?.into_bytes())
    }

    fn save(&mut self, state: &JsValue) -> Result<Vec<u8>, Failure> {
        let saved = self.0.save(state).map_err(|error| failure(&error, "CANNOT_SAVE"))?;
        Ok(saved.into_bytes())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<JsValue, Failure> {
        self.0.load(text(bytes)?, false).map_err(|error| failure(&error, "CANNOT_LOAD"))
    }

    fn load_old(&mut self, bytes: &[u8]) -> Result<JsValue, Failure> {
        self.0.load(text(bytes)?, true).map_err(|error| failure(&error, "CANNOT_LOAD"))
    }

    fn committed(&mut self, index: Index) {
        // The shell reports what a subscriber throws.
        let _ = self.0.committed(index as f64);
    }
}
