//! The interface between the core and JavaScript. The npm package's shell makes `conflux({...})` of
//! it.

mod node;

pub use self::node::CoreNode;
