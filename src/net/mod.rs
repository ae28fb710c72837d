//! What the kernel says about the network of this pod.

pub mod route;
