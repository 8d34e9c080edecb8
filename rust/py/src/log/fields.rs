//! The values of an event or a span, bounded in number and length.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};

use crate::event::FieldValue;

/// More fields than this are left out.
const MAX_FIELDS: usize = 32;
/// Longer texts are cut.
const MAX_TEXT_BYTES: usize = 1_024;

/// Collected fields; the message is one of them until it is taken out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    values: BTreeMap<String, FieldValue>,
}

impl Fields {
    /// Adds the fields of an enclosing span; outer spans come first, inner values replace theirs.
    pub(crate) fn merge(&mut self, outer: &Self) {
        for (key, value) in &outer.values {
            self.insert(key, value.clone());
        }
    }

    /// The constant text of the event, empty if it has none.
    pub(crate) fn take_message(&mut self) -> String {
        match self.values.remove("message") {
            Some(FieldValue::Text(text)) => text,
            _ => String::new(),
        }
    }

    /// The fields by name.
    pub(crate) fn into_map(self) -> BTreeMap<String, FieldValue> {
        self.values
    }

    fn insert(&mut self, key: &str, value: FieldValue) {
        if self.values.len() < MAX_FIELDS || self.values.contains_key(key) {
            self.values.insert(key.to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field.name(), FieldValue::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field.name(), FieldValue::Int(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field.name(), FieldValue::Int(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field.name(), FieldValue::Float(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Clipped::default();
        // Being full is its only error, and then the rest is to be left out.
        let _ = text.write_str(value);
        self.insert(field.name(), FieldValue::Text(text.0));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Clipped::default();
        let _ = write!(text, "{value:?}");
        self.insert(field.name(), FieldValue::Text(text.0));
    }
}

/// A text that stops growing at [`MAX_TEXT_BYTES`], with an ellipsis.
#[derive(Debug, Default)]
struct Clipped(String);

impl Write for Clipped {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        let room = MAX_TEXT_BYTES.saturating_sub(self.0.len());
        if piece.len() <= room {
            self.0.push_str(piece);
            return Ok(());
        }
        self.0.push_str(&piece[..piece.floor_char_boundary(room)]);
        self.0.push('…');
        Err(std::fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut text = Clipped::default();
        assert!(text.write_str(&"é".repeat(MAX_TEXT_BYTES)).is_err());
        assert_eq!(text.0, format!("{}…", "é".repeat(MAX_TEXT_BYTES / 2)));
    }

    #[test]
    fn fields_beyond_the_limit_are_left_out_and_known_ones_replaced() {
        let mut fields = Fields::default();
        for number in 0..40 {
            fields.insert(&format!("field{number:02}"), FieldValue::Int(number));
        }
        fields.insert("field00", FieldValue::Bool(true));
        let map = fields.into_map();
        assert_eq!(map.len(), MAX_FIELDS);
        assert_eq!(map["field00"], FieldValue::Bool(true));
    }
}
