//! The one table of exit codes. The main process's own code is passed on as it is, 128+N when a signal ended it, 126 and
//! 127 as shells do; the agent's own failures use sysexits(3), so that nobody takes them for the application's.

/// The hook succeeded; the agent is ready; the configuration is good.
pub const OK: u8 = 0;
/// The hook failed: an aborting step failed, or the deadline passed. Not ready, not live.
pub const FAILED: u8 = 1;
/// EX_USAGE: the command line.
pub const USAGE: u8 = 64;
/// EX_DATAERR: a manifest that cannot be read.
pub const DATA: u8 = 65;
/// EX_UNAVAILABLE: no agent runs in this container, and one is needed.
pub const NO_AGENT: u8 = 69;
/// EX_SOFTWARE: the agent could not do its own job (the system refused something).
pub const INTERNAL: u8 = 70;
/// EX_NOPERM: the agent refused the call.
pub const NOT_PERMITTED: u8 = 77;
/// EX_CONFIG: the configuration; nothing was started.
pub const CONFIG: u8 = 78;
