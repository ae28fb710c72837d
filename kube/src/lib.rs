//! The map: YAML in → [`document`]s → the [`pod`]s in them and the configuration that belongs to each → [`rules`] →
//! [`finding`]s → [`output`] or [`fix`]. And the other way round: a configuration → [`facts`] → [`manifest`].
//!
//! | room | what it is for |
//! |---|---|
//! | [`check`] | `check --pod`, one call after the other |
//! | [`document`] | YAML text as documents, with the line of everything in them |
//! | [`path`] | where something stands in a document |
//! | [`pod`] | which documents have pods, which container has boathook, in which way, and with which configuration |
//! | [`facts`] | what a configuration asks of a pod; pure |
//! | [`rules`] | what is wrong with a pod, and why: one rule after the other; pure |
//! | [`finding`] | one thing that is wrong |
//! | [`output`] | findings as text, JSON, SARIF and GitHub's annotations; pure |
//! | [`fix`] | the YAML with the findings' edits in it, comments and order kept; pure |
//! | [`manifest`] | the YAML that fits a configuration |
//! | [`schema`] | the JSON Schema of the configuration |

pub mod check;
pub mod document;
pub mod facts;
pub mod finding;
pub mod fix;
pub mod manifest;
pub mod output;
pub mod path;
pub mod pod;
pub mod rules;
pub mod schema;
