//! A media type, as its sender wrote it.

use std::ops::Deref;
use std::sync::Arc;

/// A media type, as its sender wrote it. One of those that nearly all bodies have takes no memory of its own.
///
/// ```
/// use tandem_protocols::payload::ContentType;
///
/// let plain = ContentType::from("text/plain");
/// assert_eq!(&*plain, "text/plain");
/// ```
#[derive(Clone, Debug)]
pub struct ContentType(Form);

#[derive(Clone, Debug)]
enum Form {
    Usual(&'static str),
    Other(Arc<str>),
}

impl From<&str> for ContentType {
    #[inline]
    fn from(text: &str) -> Self {
        let usual = match text.as_bytes() {
            b"text/plain" => "text/plain",
            b"application/json" => "application/json",
            b"application/octet-stream" => "application/octet-stream",
            b"text/plain;charset=utf-8" => "text/plain;charset=utf-8",
            b"application/json;charset=utf-8" => "application/json;charset=utf-8",
            _ => return Self(Form::Other(text.into())),
        };
        Self(Form::Usual(usual))
    }
}

impl Deref for ContentType {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.0 {
            Form::Usual(text) => text,
            Form::Other(text) => text,
        }
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ContentType {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_and_other_types_are_what_was_written() {
        for text in ["text/plain", "application/json", "application/octet-stream", "a/b", "", "Text/plain"] {
            assert_eq!(&*ContentType::from(text), text);
            assert_eq!(ContentType::from(text), ContentType::from(text));
        }
        assert_ne!(ContentType::from("a/b"), ContentType::from("a/c"));
        assert_eq!(size_of::<Option<ContentType>>(), 24);
    }
}
