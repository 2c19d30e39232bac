//! AMF0 values, one after another as in a message body.

use sluicegate::proto::rtmp::amf0::{Reader, Value, write};

/// Reads all that reads, and holds each value to what is written of it.
pub fn run(data: &[u8]) {
    let mut reader = Reader::new(data);
    let (mut values, mut held) = (Vec::new(), 0);
    while let Ok(Some(value)) = reader.next_value() {
        held += held_by(&value);
        values.push(value);
    }
    assert!(held <= 2 * data.len() + (64 << 10), "{held} bytes held for {}", data.len());
    assert!(data.ends_with(reader.rest()));

    // Written once, the bytes say the same for ever. Compared as bytes: NaN is not equal to itself.
    let mut once = Vec::new();
    for value in &values {
        write(&mut once, value);
    }
    let (mut reader, mut again) = (Reader::new(&once), Vec::new());
    for _ in &values {
        let value = reader.next_value().expect("what we wrote reads").expect("as many values");
        write(&mut again, &value);
    }
    assert_eq!(reader.next_value(), Ok(None));
    assert_eq!(once, again);
}

/// Bytes on the heap.
fn held_by(value: &Value) -> usize {
    let mut sum = 0;
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) | Value::Xml(text) => sum += text.capacity(),
            Value::StrictArray(items) => {
                sum += items.capacity() * size_of::<Value>();
                open.extend(items);
            }
            Value::Object(items) | Value::EcmaArray(items) => {
                sum += items.capacity() * size_of::<(Vec<u8>, Value)>();
                for (name, value) in items {
                    sum += name.capacity();
                    open.push(value);
                }
            }
            _ => {}
        }
    }
    sum
}
