//! What JavaScript sees of the core. The npm package's shell turns it into `conflux({...})`.

mod node;

pub use self::node::CoreNode;
