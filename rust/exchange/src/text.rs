//! Bounds on text that goes into messages.

/// Shortens `text` to at most `max_bytes`, between two characters.
pub(crate) fn cut(text: &mut String, max_bytes: usize) {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
