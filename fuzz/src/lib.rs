//! What several targets share.

mod json;

pub use json::mutate;

/// A text for one line of a terminal or a log.
pub fn assert_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
