//! The part of `regex` that oci-spec uses, from `regex-lite`.

pub use regex_lite::{Error, Regex};
