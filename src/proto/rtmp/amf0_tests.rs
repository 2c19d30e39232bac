use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<Option<Value>, AmfError> {
    Reader::new(bytes).next_value()
}

fn written(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value);
    out
}

fn name(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn every_kind_of_value_reads_as_the_specification_writes_it() {
    let cases: [(&[u8], Value); 15] = [
        (b"\x00\x40\x08\x00\x00\x00\x00\x00\x00", Value::Number(3.0)),
        (b"\x01\x01", Value::Boolean(true)),
        (b"\x01\x00", Value::Boolean(false)),
        (b"\x02\x00\x03abc", Value::String(name("abc"))),
        (b"\x03\x00\x01a\x05\x00\x00\x09", Value::Object(vec![(name("a"), Value::Null)])),
        (b"\x05", Value::Null),
        (b"\x06", Value::Undefined),
        (b"\x08\x00\x00\x00\x01\x00\x01a\x05\x00\x00\x09", Value::EcmaArray(vec![(name("a"), Value::Null)])),
        (b"\x0a\x00\x00\x00\x02\x05\x06", Value::StrictArray(vec![Value::Null, Value::Undefined])),
        (b"\x0a\x00\x00\x00\x00", Value::StrictArray(vec![])),
        (b"\x03\x00\x00\x09", Value::Object(vec![])),
        (b"\x0b\x40\x08\x00\x00\x00\x00\x00\x00\x01\x02", Value::Date(3.0)),
        (b"\x0c\x00\x00\x00\x02ab", Value::String(name("ab"))),
        (b"\x0f\x00\x00\x00\x04<a/>", Value::Xml(name("<a/>"))),
        (b"\x10\x00\x01C\x00\x01a\x01\x01\x00\x00\x09", Value::Object(vec![(name("a"), Value::Boolean(true))])),
    ];
    for (bytes, value) in cases {
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.next_value(), Ok(Some(value)));
        assert_eq!(reader.next_value(), Ok(None));
        for cut in 1..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Err(AmfError::Truncated), "{bytes:?} cut at {cut}");
        }
    }
}

#[test]
fn a_command_reads_value_by_value() {
    let mut reader = Reader::new(b"\x02\x00\x04play\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x02\x00\x01s");
    assert_eq!(reader.next_value().unwrap().unwrap().as_str(), Some("play"));
    assert_eq!(reader.next_value().unwrap().unwrap().as_number(), Some(0.0));
    assert_eq!(reader.next_value(), Ok(Some(Value::Null)));
    assert_eq!(reader.rest(), b"\x02\x00\x01s");
    assert_eq!(reader.next_value().unwrap().unwrap().as_str(), Some("s"));
    assert_eq!(reader.next_value(), Ok(None));
}

#[test]
fn rt_41_nesting_ends_at_sixteen() {
    let array = b"\x0a\x00\x00\x00\x01".as_slice();
    let object = b"\x03\x00\x01a".as_slice();
    for (unit, end) in [(array, b"".as_slice()), (object, b"\x00\x00\x09".as_slice())] {
        let nested = |depth: usize| [unit.repeat(depth), vec![0x05], end.repeat(depth)].concat();
        assert!(read(&nested(16)).unwrap().is_some());
        assert_eq!(read(&nested(17)), Err(AmfError::TooDeep));
        assert_eq!(read(&unit.repeat(1_000_000)), Err(AmfError::TooDeep));
    }
}

#[test]
fn rt_42_a_claimed_count_is_not_believed() {
    assert_eq!(read(b"\x0a\xff\xff\xff\xff"), Err(AmfError::Truncated));
    assert_eq!(read(b"\x0a\xff\xff\xff\xff\x05\x05"), Err(AmfError::Truncated));
    // Of an ECMA array the count means nothing at all.
    assert_eq!(read(b"\x08\xff\xff\xff\xff\x00\x00\x09"), Ok(Some(Value::EcmaArray(vec![]))));
    assert_eq!(read(b"\x08\x00\x00\x00\x00\x00\x01a\x05"), Err(AmfError::Truncated));
}

#[test]
fn rt_43_items_end_at_1024_a_message() {
    let object = |count: usize| [b"\x03".to_vec(), b"\x00\x01a\x05".repeat(count), b"\x00\x00\x09".to_vec()].concat();
    assert!(read(&object(1023)).unwrap().is_some());
    assert_eq!(read(&object(1024)), Err(AmfError::TooMany));
    assert_eq!(read(&object(100_000)), Err(AmfError::TooMany));

    let mut reader = Reader::new(&[0x05; 1025]);
    for _ in 0..1024 {
        assert_eq!(reader.next_value(), Ok(Some(Value::Null)));
    }
    assert_eq!(reader.next_value(), Err(AmfError::TooMany));
}

#[test]
fn rt_44_strings_are_bytes_within_limits() {
    assert_eq!(read(b"\x02\x00\x05abc"), Err(AmfError::Truncated));
    assert_eq!(read(b"\x0c\xff\xff\xff\xff"), Err(AmfError::StringTooLong));
    let long = |length: usize| [b"\x0c\x00\x00".as_slice(), &[0x10, 0], &vec![b'x'; length]].concat();
    assert_eq!(read(&long(4096)), Ok(Some(Value::String(vec![b'x'; 4096]))));
    let over = [&[0x02, 0x10, 0x01][..], &[b'x'; 4097]].concat();
    assert_eq!(read(&over), Err(AmfError::StringTooLong));
    assert_eq!(read(&[&[0x03, 0x10, 0x01][..], &[b'x'; 4097]].concat()), Err(AmfError::StringTooLong));

    // Metadata keeps its bytes; names do not read as text.
    for bad in [b"\x02\x00\x02\xff\xfe".as_slice(), b"\x02\x00\x03a\x00b"] {
        let value = read(bad).unwrap().unwrap();
        assert_eq!(value, Value::String(bad[3..].to_vec()));
        assert_eq!(value.as_str(), None);
        assert_eq!(written(&value), bad);
    }
}

#[test]
fn rt_47_markers_of_known_length_are_skipped_and_others_refused() {
    for skipped in [b"\x07\x00\x01\x05".as_slice(), b"\x0d\x05"] {
        let mut reader = Reader::new(skipped);
        assert_eq!(reader.next_value(), Ok(Some(Value::Undefined)));
        assert_eq!(reader.next_value(), Ok(Some(Value::Null)));
    }
    for marker in [0x04, 0x09, 0x0e, 0x11, 0x12, 0xff] {
        assert_eq!(read(&[marker, 0, 0, 0]), Err(AmfError::Marker(marker)));
    }
    // A reference to the object that it is in does not become a cycle.
    let value = read(b"\x03\x00\x01a\x07\x00\x00\x00\x00\x09").unwrap().unwrap();
    assert_eq!(value.get("a"), Some(&Value::Undefined));
}

#[test]
fn rt_48_the_last_of_duplicate_names_wins_and_an_empty_name_is_one() {
    let value = read(b"\x03\x00\x01a\x01\x00\x00\x00\x05\x00\x01a\x01\x01\x00\x00\x09").unwrap().unwrap();
    assert_eq!(value.get("a"), Some(&Value::Boolean(true)));
    assert_eq!(value.get(""), Some(&Value::Null));
}

fn values() -> impl Strategy<Value = Value> {
    let text = || prop::collection::vec(any::<u8>(), 0..20);
    let scalar = prop_oneof![
        any::<f64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        text().prop_map(Value::String),
        Just(Value::Null),
        Just(Value::Undefined),
        any::<f64>().prop_map(Value::Date),
        text().prop_map(Value::Xml),
    ];
    scalar.prop_recursive(5, 64, 8, move |inner| {
        let properties = || prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5), inner.clone()), 0..8);
        prop_oneof![
            properties().prop_map(Value::Object),
            properties().prop_map(Value::EcmaArray),
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::StrictArray),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(values in prop::collection::vec(values(), 0..4)) {
        let bytes: Vec<u8> = values.iter().flat_map(written).collect();
        let mut reader = Reader::new(&bytes);
        for value in &values {
            let back = reader.next_value().unwrap().unwrap();
            // Compared as bytes: NaN is not equal to itself.
            prop_assert_eq!(written(&back), written(value));
        }
        prop_assert_eq!(reader.next_value(), Ok(None));
    }

    #[test]
    fn any_bytes_read_or_are_refused(bytes in prop::collection::vec(prop_oneof![0_u8..0x12, any::<u8>()], 0..200)) {
        let mut reader = Reader::new(&bytes);
        while let Ok(Some(value)) = reader.next_value() {
            let once = written(&value);
            let again = read(&once).unwrap().unwrap();
            prop_assert_eq!(written(&again), once);
        }
    }
}
