//! Says which node serves whom and which node owns what; forwards frames between nodes; the one public origin.

pub mod assign;
pub mod members;
pub mod topics;
