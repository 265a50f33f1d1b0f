//! JSON objects as Go's `encoding/json` reads them: field names match in any case, the last of
//! several wins, unknown fields are passed over, `null` keeps the default (flannel facts §1.1).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object, its values not yet looked at.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

/// A field whose value is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: {reason}")]
pub struct FieldError {
    /// The field's name, in flannel's spelling.
    pub field: &'static str,
    /// The offending JSON text, shortened.
    pub found: String,
    /// What would be right.
    pub reason: String,
}

impl Fields {
    /// The object in `text`.
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The JSON text of a field, if it is there.
    pub(super) fn raw(&self, field: &str) -> Option<&str> {
        let (_, value) = self
            .0
            .iter()
            .rev()
            .find(|(name, _)| name.eq_ignore_ascii_case(field))?;
        Some(value.get())
    }

    /// A field of type `T`; absent and `null` are `None`. `reason` says what is expected.
    pub(super) fn get<'a, T: Deserialize<'a>>(
        &'a self,
        field: &'static str,
        reason: &str,
    ) -> Result<Option<T>, FieldError> {
        let Some(raw) = self.raw(field) else {
            return Ok(None);
        };
        serde_json::from_str(raw).map_err(|_| self.error(field, reason))
    }

    /// As [`Fields::get`], but where flannel does not take `null` either.
    pub(super) fn get_not_null<'a, T: Deserialize<'a>>(
        &'a self,
        field: &'static str,
        reason: &str,
    ) -> Result<Option<T>, FieldError> {
        match self.raw(field) {
            Some("null") => Err(self.error(field, reason)),
            _ => self.get(field, reason),
        }
    }

    /// The error that `field` holds something else than `reason` asks for.
    pub(super) fn error(&self, field: &'static str, reason: &str) -> FieldError {
        let found = self.raw(field).unwrap_or("(absent)");
        FieldError {
            field,
            found: line(&found.chars().take(80).collect::<String>()),
            reason: reason.to_owned(),
        }
    }
}

/// A text from outside as part of a message: one line without control characters, and of a long
/// one only how it begins and ends. serde's errors quote a wrong value whole.
pub(super) fn line(text: &str) -> String {
    const HEAD: usize = 120;
    const TAIL: usize = 80;
    let plain = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let length = text.chars().count();
    if length <= HEAD + TAIL {
        return text.chars().map(plain).collect();
    }
    let head = text.chars().take(HEAD).map(plain);
    let tail = text.chars().skip(length - TAIL).map(plain);
    head.chain(['…']).chain(tail).collect()
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<Box<RawValue>>()?;
                    if fields.len() == 64 {
                        return Err(A::Error::custom("more than 64 fields"));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
