//! The kernel's interfaces that need care, each in a small module of its own.

pub mod files;
