//! Reads the answers of storage and locks from JavaScript values.

use wasm_bindgen::prelude::*;

use crate::elastic::{self, Record, Registry, StopReason};
use crate::host::elastic::number;
use crate::storage;

/// The answer of this kind (`what`) about a node, with its value. `None` when there is no such kind
/// or the value does not fit: a bug of the shell.
pub(super) fn read_answer(what: &str, node: &str, value: &JsValue) -> Option<elastic::Input> {
    let node = number(node)?;
    Some(match what {
        "registry" => match (value.is_object(), read_registry(value)) {
            (false, _) => elastic::Input::Registry(None),
            (true, Some(registry)) => elastic::Input::Registry(Some(registry)),
            (true, None) => {
                let why = "the registry cannot be read".into();
                elastic::Input::Failed(StopReason::StorageFailed(why))
            }
        },
        "lock" => elastic::Input::Lock { node, granted: value.is_truthy() },
        "lost" => elastic::Input::Lost(node),
        "loaded" => match value.is_object() {
            false => elastic::Input::Loaded { node, record: None },
            true => match read_record(value) {
                Ok(record) => elastic::Input::Loaded { node, record: Some(record) },
                // A node whose record cannot be read must not run, and must not count as removed
                // either.
                Err(why) => elastic::Input::Failed(StopReason::StorageFailed(why)),
            },
        },
        "created" => elastic::Input::Created(node),
        "registered" => elastic::Input::Registered(node),
        "deleted" => elastic::Input::Deleted(node),
        "storageLost" => elastic::Input::Failed(StopReason::StorageLost),
        "failed" => {
            let why = value.as_string().unwrap_or_default();
            elastic::Input::Failed(StopReason::StorageFailed(why))
        }
        _ => return None,
    })
}

fn get(object: &JsValue, key: &str) -> JsValue {
    js_sys::Reflect::get(object, &key.into()).unwrap_or_default()
}

/// `None` when there is no list. (`Array::from` would throw, right through the core.)
fn list(object: &JsValue, key: &str) -> Option<Vec<JsValue>> {
    Some(get(object, key).dyn_ref::<js_sys::Array>()?.iter().collect())
}

fn bytes(value: &JsValue) -> Option<Vec<u8>> {
    value.dyn_ref::<js_sys::Uint8Array>().map(js_sys::Uint8Array::to_vec)
}

fn read_registry(value: &JsValue) -> Option<Registry> {
    let incarnation = u64::from_str_radix(&get(value, "incarnation").as_string()?, 16).ok()?;
    let nodes = list(value, "nodes")?;
    let nodes = nodes.iter().filter_map(|id| number(&id.as_string()?)).collect();
    Some(Registry { incarnation, nodes })
}

fn read_record(value: &JsValue) -> Result<Record, String> {
    let incarnation = get(value, "incarnation").as_string();
    let incarnation = incarnation.and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    let epoch = get(value, "epoch").as_f64();
    let (Some(incarnation), Some(epoch)) = (incarnation, epoch) else {
        return Err("a node's record has no epoch".into());
    };
    let (hard, snapshot) = (bytes(&get(value, "hard")), bytes(&get(value, "snapshot")));
    let log = list(value, "log").unwrap_or_default();
    let log: Vec<_> = log.iter().filter_map(bytes).collect();
    let values = log.iter().map(Vec::as_slice);
    let saved = storage::restore(hard.as_deref(), snapshot.as_deref(), values);
    let saved = saved.map_err(|error| format!("a node's record cannot be read: {error}"))?;
    Ok(Record { incarnation, epoch: epoch as u64, saved })
}
