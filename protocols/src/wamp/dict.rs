//! Options and Details: small dictionaries whose keys keep their order.
//!
//! Only these are decoded; arguments never are. They are bounded in depth and in entries, so that what a
//! peer makes us hold stays a small multiple of what it sent.

use crate::wamp::error::Violation;
use crate::wamp::id::Id;

/// How deep dictionaries and lists may stand in each other, the outermost included.
pub const DEPTH_MAX: usize = 32;
/// How many entries of dictionaries and lists one message may have in all.
pub const ENTRIES_MAX: usize = 4096;

/// A value in a dictionary.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null, or JavaScript's `undefined`. As the value of a key, it means that the key is absent.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer, from -2^63 to 2^64 - 1.
    Int(i128),
    /// A double, also where its value is integral.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// A dictionary.
    Dict(Dict),
}

impl Value {
    /// The integer, also from a double that is integral: some clients write all large integers so.
    #[must_use]
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(*value),
            // Doubles up to 2^63 convert exactly.
            Self::Float(value) if value.fract() == 0.0 && value.abs() <= 9_223_372_036_854_775_808.0 => {
                Some(*value as i128)
            }
            _ => None,
        }
    }

    /// The ID, also from a double.
    #[must_use]
    pub fn as_id(&self) -> Option<Id> {
        self.as_int().and_then(|value| u64::try_from(value).ok()).and_then(Id::new)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The dictionary.
    #[must_use]
    pub fn as_dict(&self) -> Option<&Dict> {
        if let Self::Dict(dict) = self { Some(dict) } else { None }
    }

    /// The list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value.into())
    }
}

impl From<Id> for Value {
    fn from(value: Id) -> Self {
        Self::Int(value.get().into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

impl From<Dict> for Value {
    fn from(value: Dict) -> Self {
        Self::Dict(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

/// Names and their values, in the order they were written in. No name stands twice.
///
/// ```
/// use tandem_protocols::wamp::dict::Dict;
///
/// let options = Dict::new().with("match", "prefix").with("get_retained", true);
/// assert_eq!(options.str("match").unwrap(), Some("prefix"));
/// assert_eq!(options.bool("nothing").unwrap(), None);
/// assert!(options.bool("match").unwrap_err().message().contains("match"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    // A vector: lookups are by our few known names, and it keeps the order that encoders must reproduce.
    entries: Vec<(String, Value)>,
}

impl Dict {
    /// An empty dictionary, which costs no allocation.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Of entries as they were read.
    pub(crate) fn from_entries(entries: Vec<(String, Value)>) -> Result<Self, Violation> {
        if has_duplicates(&entries) {
            return Err(Violation::new("a key stands twice in one dictionary"));
        }
        Ok(Self { entries })
    }

    /// How many names there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values in their order, nulls included.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`; `None` where it is absent or null.
    #[must_use]
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Value> {
        // Mostly there is nothing, and a view asks for all that it knows.
        if self.entries.is_empty() {
            return None;
        }
        let found = self.entries.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value).filter(|value| **value != Value::Null)
    }

    /// Sets `key`, in its place where it stands already, else as the last.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// [`insert`](Self::insert), for a chain.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }

    /// The truth value of `key`.
    ///
    /// # Errors
    ///
    /// As for all of these getters: a [`Violation`] that names `key`, where its value has another type.
    #[inline]
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Violation> {
        self.read(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The ID of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn id(&self, key: &str) -> Result<Option<Id>, Violation> {
        self.read(key, "an ID", Value::as_id)
    }

    /// The integer of `key`, which is not negative.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn uint(&self, key: &str) -> Result<Option<u64>, Violation> {
        self.read(key, "an integer that is not negative", |value| {
            value.as_int().and_then(|value| u64::try_from(value).ok())
        })
    }

    /// The text of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn str(&self, key: &str) -> Result<Option<&str>, Violation> {
        self.read(key, "a string", Value::as_str)
    }

    /// The dictionary of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn dict(&self, key: &str) -> Result<Option<&Dict>, Violation> {
        self.read(key, "a dictionary", Value::as_dict)
    }

    /// The list of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, Violation> {
        self.read(key, "a list", Value::as_list)
    }

    /// The list of IDs of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn ids(&self, key: &str) -> Result<Option<Vec<Id>>, Violation> {
        self.read(key, "a list of IDs", |value| value.as_list()?.iter().map(Value::as_id).collect())
    }

    /// The list of texts of `key`.
    ///
    /// # Errors
    ///
    /// See [`bool`](Self::bool).
    #[inline]
    pub fn strs(&self, key: &str) -> Result<Option<Vec<&str>>, Violation> {
        self.read(key, "a list of strings", |value| value.as_list()?.iter().map(Value::as_str).collect())
    }

    /// What `convert` makes of the value of `key`, which is `expected`.
    #[inline]
    pub(crate) fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Violation> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Violation::new(format!("{key} is not {expected}"))),
        }
    }
}

fn has_duplicates(entries: &[(String, Value)]) -> bool {
    // Sorting beyond a few entries: comparing each with each would let a peer buy much time with few bytes.
    if entries.len() <= 16 {
        return (1..entries.len()).any(|i| entries[..i].iter().any(|(key, _)| *key == entries[i].0));
    }
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let mut dict = Dict::new();
        dict.insert("match", Value::Null);
        assert_eq!(dict.get("match"), None);
        assert_eq!(dict.str("match"), Ok(None));
        assert_eq!(dict.len(), 1);
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let dict = Dict::new().with("k", vec![Value::Bool(true)]);
        let violations = [
            dict.bool("k").unwrap_err(),
            dict.id("k").unwrap_err(),
            dict.uint("k").unwrap_err(),
            dict.str("k").unwrap_err(),
            dict.dict("k").unwrap_err(),
            dict.ids("k").unwrap_err(),
            dict.strs("k").unwrap_err(),
        ];
        assert!(violations.iter().all(|violation| violation.message().starts_with("k is not ")));
        assert!(dict.list("k").unwrap().is_some());
    }

    #[test]
    fn ids_may_be_doubles_but_nothing_else() {
        for (value, id) in [
            (Value::Int(1), Some(1)),
            (Value::Float(1.0), Some(1)),
            (Value::Float(9_007_199_254_740_992.0), Some(1 << 53)),
            (Value::Int((1 << 53) + 1), None),
            (Value::Float(9_007_199_254_740_994.0), None),
            (Value::Int(0), None),
            (Value::Float(0.0), None),
            (Value::Int(-1), None),
            (Value::Float(1.5), None),
            (Value::Float(f64::NAN), None),
            (Value::Float(f64::INFINITY), None),
            (Value::Float(1e300), None),
            (Value::Bool(true), None),
            (Value::from("1"), None),
        ] {
            assert_eq!(value.as_id().map(Id::get), id, "{value:?}");
        }
    }

    #[test]
    fn names_keep_their_order_and_stand_once() {
        let mut dict = Dict::new().with("b", 1_u64).with("a", 2_u64);
        dict.insert("b", 3_u64);
        assert_eq!(dict.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(dict.uint("b"), Ok(Some(3)));
        assert_eq!(dict.remove("b"), Some(Value::Int(3)));

        for count in [2, 16, 17, 4000] {
            let mut entries: Vec<_> = (0..count).map(|i| (i.to_string(), Value::Null)).collect();
            assert!(Dict::from_entries(entries.clone()).is_ok());
            entries[count - 1].0 = "0".to_owned();
            assert!(Dict::from_entries(entries).is_err());
        }
    }
}
