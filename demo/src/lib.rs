//! The pieces of the demo; the rollout benchmark builds on `http` and `kubelet` as well.
//!
//! `server` is the application, `pod` the place where it runs, `kubelet` starts and stops it as Kubernetes does,
//! `clients` are the traffic with the routing layer between, `rollout` puts them together, `table` shows the outcome.

pub mod clients;
pub mod http;
pub mod kubelet;
pub mod pod;
pub mod rollout;
pub mod server;
pub mod table;
