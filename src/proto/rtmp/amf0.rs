//! AMF0 values (Adobe "Action Message Format – AMF 0"), read without recursion and within limits.

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Marker 0x00.
    Number(f64),
    /// Marker 0x01.
    Boolean(bool),
    /// Markers 0x02 and 0x0c; bytes as sent, which need not be UTF-8.
    String(Vec<u8>),
    /// Marker 0x03 (and 0x10 with its class name dropped); last of duplicate keys wins.
    Object(Vec<(Vec<u8>, Value)>),
    /// Marker 0x08.
    EcmaArray(Vec<(Vec<u8>, Value)>),
    /// Marker 0x0a.
    StrictArray(Vec<Value>),
    /// Marker 0x05.
    Null,
    /// Markers 0x06 and 0x0d.
    Undefined,
    /// Marker 0x0b: milliseconds since the epoch.
    Date(f64),
    /// Marker 0x0f.
    Xml(Vec<u8>),
}

/// Why bytes are not AMF0 that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// The input ends inside a value.
    #[error("the value is cut short")]
    Truncated,
    /// Deeper than 16 levels.
    #[error("nested too deep")]
    TooDeep,
    /// More than 1,024 items in a message.
    #[error("too many items")]
    TooMany,
    /// A string over its cap.
    #[error("a string is too long")]
    StringTooLong,
    /// A marker whose length is not known, so that what follows cannot be found.
    #[error("marker {0:#04x} is not readable")]
    Marker(u8),
}

/// Reads values one after another from a message body.
pub struct Reader<'a> {
    input: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over one message body.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.input
    }

    /// The next value, or `None` at the end of the body.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn next_value(&mut self) -> Result<Option<Value>, AmfError> {
        todo!("H1")
    }
}

/// Appends `value` in AMF0.
pub fn write(_out: &mut Vec<u8>, _value: &Value) {
    todo!("H1")
}

impl Value {
    /// The text of a UTF-8 string without NUL.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(bytes) => std::str::from_utf8(bytes).ok().filter(|s| !s.contains('\0')),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// A property of an object or array, by name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(items) | Self::EcmaArray(items) => {
                items.iter().rev().find(|(k, _)| k == key.as_bytes()).map(|(_, v)| v)
            }
            _ => None,
        }
    }
}
