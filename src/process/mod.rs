//! placeholder
#[derive(Clone)]
pub struct Processes;
