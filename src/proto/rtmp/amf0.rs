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

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 16;

/// Most values in one message, containers and their contents counted alike.
pub const ITEMS_MAX: usize = 1024;

/// Longest string, property name or class name, in bytes.
pub const STRING_MAX: usize = 4096;

/// Reads values one after another from a message body.
///
/// No function calls itself, no count that the peer claims allocates anything, and the limits hold for
/// all values of the body together. After an error what is left is not worth reading.
pub struct Reader<'a> {
    input: &'a [u8],
    items: usize,
}

/// A container whose end has not been read.
enum Open {
    Object(Vec<(Vec<u8>, Value)>),
    EcmaArray(Vec<(Vec<u8>, Value)>),
    StrictArray(Vec<Value>, u32),
}

/// What a marker begins.
enum Begun {
    Value(Value),
    Open(Open),
}

impl<'a> Reader<'a> {
    /// A reader over one message body.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, items: 0 }
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
        if self.input.is_empty() {
            return Ok(None);
        }
        let mut open: Vec<(Open, Vec<u8>)> = Vec::new();
        // The name under which the next value goes; empty outside of objects.
        let mut name = Vec::new();
        loop {
            let mut value = match self.begin()? {
                Begun::Value(value) => value,
                Begun::Open(_) if open.len() >= DEPTH_MAX => return Err(AmfError::TooDeep),
                Begun::Open(container) => match self.next_place(container)? {
                    Place::Inside(container, inner) => {
                        open.push((container, std::mem::replace(&mut name, inner)));
                        continue;
                    }
                    Place::Closed(value) => value,
                },
            };
            // Hand the value to the container around it, which may complete that one too.
            loop {
                let Some((mut container, outer)) = open.pop() else { return Ok(Some(value)) };
                container.put(std::mem::take(&mut name), value);
                match self.next_place(container)? {
                    Place::Inside(container, inner) => {
                        open.push((container, outer));
                        name = inner;
                        break;
                    }
                    Place::Closed(closed) => {
                        value = closed;
                        name = outer;
                    }
                }
            }
        }
    }

    /// Reads a marker, and the value behind it unless that is a container.
    fn begin(&mut self) -> Result<Begun, AmfError> {
        self.items = self.items.saturating_add(1);
        if self.items > ITEMS_MAX {
            return Err(AmfError::TooMany);
        }
        let [marker] = self.take()?;
        Ok(Begun::Value(match marker {
            0x00 => Value::Number(f64::from_be_bytes(self.take()?)),
            0x01 => Value::Boolean(self.take::<1>()? != [0]),
            0x02 => Value::String(self.short_string()?.to_vec()),
            0x03 => return Ok(Begun::Open(Open::Object(Vec::new()))),
            0x05 => Value::Null,
            0x06 | 0x0d => Value::Undefined,
            0x07 => {
                // A reference to an object sent before. Following it could build a cycle; nobody
                // whose messages we read sends one.
                self.take::<2>()?;
                Value::Undefined
            }
            0x08 => {
                // The count is a hint (AMF 0 §2.10), and some encoders write 0: the end marker decides.
                self.take::<4>()?;
                return Ok(Begun::Open(Open::EcmaArray(Vec::new())));
            }
            0x0a => {
                let count = u32::from_be_bytes(self.take()?);
                return Ok(Begun::Open(Open::StrictArray(Vec::new(), count)));
            }
            0x0b => {
                let millis = f64::from_be_bytes(self.take()?);
                // The time zone, which "should not be filled" (AMF 0 §2.13).
                self.take::<2>()?;
                Value::Date(millis)
            }
            0x0c => Value::String(self.long_string()?.to_vec()),
            0x0f => Value::Xml(self.long_string()?.to_vec()),
            0x10 => {
                self.short_string()?;
                return Ok(Begun::Open(Open::Object(Vec::new())));
            }
            other => return Err(AmfError::Marker(other)),
        }))
    }

    /// Finds where the next value goes: into the container, or behind it because it ends here.
    fn next_place(&mut self, container: Open) -> Result<Place, AmfError> {
        match container {
            Open::StrictArray(_, 0) => Ok(Place::Closed(container.close())),
            Open::StrictArray(items, left) => {
                // Each value takes a byte at least.
                if to_usize(left) > self.input.len() {
                    return Err(AmfError::Truncated);
                }
                Ok(Place::Inside(Open::StrictArray(items, left.saturating_sub(1)), Vec::new()))
            }
            Open::Object(_) | Open::EcmaArray(_) => {
                let name = self.short_string()?;
                // An empty name is a name, unless the end marker follows (RT-48).
                if name.is_empty() {
                    let (marker, rest) = self.input.split_first().ok_or(AmfError::Truncated)?;
                    if *marker == 0x09 {
                        self.input = rest;
                        return Ok(Place::Closed(container.close()));
                    }
                }
                Ok(Place::Inside(container, name.to_vec()))
            }
        }
    }

    fn short_string(&mut self) -> Result<&'a [u8], AmfError> {
        let length = u16::from_be_bytes(self.take()?);
        self.string(usize::from(length))
    }

    fn long_string(&mut self) -> Result<&'a [u8], AmfError> {
        let length = u32::from_be_bytes(self.take()?);
        self.string(to_usize(length))
    }

    fn string(&mut self, length: usize) -> Result<&'a [u8], AmfError> {
        if length > STRING_MAX {
            return Err(AmfError::StringTooLong);
        }
        let (text, rest) = self.input.split_at_checked(length).ok_or(AmfError::Truncated)?;
        self.input = rest;
        Ok(text)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (bytes, rest) = self.input.split_first_chunk().ok_or(AmfError::Truncated)?;
        self.input = rest;
        Ok(*bytes)
    }
}

enum Place {
    /// The next value belongs into the container, under a name if it has names.
    Inside(Open, Vec<u8>),
    /// The container is whole.
    Closed(Value),
}

impl Open {
    fn put(&mut self, name: Vec<u8>, value: Value) {
        match self {
            Self::Object(items) | Self::EcmaArray(items) => items.push((name, value)),
            Self::StrictArray(items, _) => items.push(value),
        }
    }

    /// The container as a value, without the room it had to grow: a body of many small objects would
    /// otherwise hold several times the memory of its items.
    fn close(self) -> Value {
        match self {
            Self::Object(mut items) => {
                items.shrink_to_fit();
                Value::Object(items)
            }
            Self::EcmaArray(mut items) => {
                items.shrink_to_fit();
                Value::EcmaArray(items)
            }
            Self::StrictArray(mut items, _) => {
                items.shrink_to_fit();
                Value::StrictArray(items)
            }
        }
    }
}

/// Appends `value` in AMF0. Names longer than 65,535 bytes, which AMF0 cannot say, are cut there.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    enum Inside<'v> {
        Properties(std::slice::Iter<'v, (Vec<u8>, Value)>),
        Items(std::slice::Iter<'v, Value>),
    }

    let mut open = Vec::new();
    let mut next = Some(value);
    loop {
        match next {
            Some(Value::Object(items)) => {
                out.push(0x03);
                open.push(Inside::Properties(items.iter()));
            }
            Some(Value::EcmaArray(items)) => {
                out.push(0x08);
                write_count(out, items.len());
                open.push(Inside::Properties(items.iter()));
            }
            Some(Value::StrictArray(items)) => {
                out.push(0x0a);
                write_count(out, items.len());
                open.push(Inside::Items(items.iter()));
            }
            Some(scalar) => write_scalar(out, scalar),
            None => {}
        }
        next = match open.last_mut() {
            None => return,
            Some(Inside::Properties(items)) => items.next().map(|(name, value)| {
                write_name(out, name);
                value
            }),
            Some(Inside::Items(items)) => items.next(),
        };
        if next.is_none()
            && let Some(Inside::Properties(_)) = open.pop()
        {
            out.extend_from_slice(&[0, 0, 0x09]);
        }
    }
}

fn write_scalar(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(0x00);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(yes) => out.extend_from_slice(&[0x01, u8::from(*yes)]),
        Value::String(text) => match u16::try_from(text.len()) {
            Ok(length) => {
                out.push(0x02);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(text);
            }
            Err(_) => write_long(out, 0x0c, text),
        },
        Value::Undefined => out.push(0x06),
        Value::Date(millis) => {
            out.push(0x0b);
            out.extend_from_slice(&millis.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        Value::Xml(text) => write_long(out, 0x0f, text),
        // Containers are the caller's; they cannot come here.
        Value::Null | Value::Object(_) | Value::EcmaArray(_) | Value::StrictArray(_) => out.push(0x05),
    }
}

fn write_name(out: &mut Vec<u8>, name: &[u8]) {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(name.iter().take(usize::from(length)));
}

fn write_long(out: &mut Vec<u8>, marker: u8, text: &[u8]) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.push(marker);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(text.iter().take(to_usize(length)));
}

fn write_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

/// Lossless: the server is for 64-bit Linux.
fn to_usize(value: u32) -> usize {
    value as usize
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

#[cfg(test)]
#[path = "amf0_tests.rs"]
mod tests;
