use proptest::prelude::*;
use rml_rtmp::chunk_io::ChunkDeserializer;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::messages::MessagePayload;
use rml_rtmp::time::RtmpTimestamp;

use super::*;

/// A reader with room for whole messages, as after an accepted publish.
fn reader() -> Reader {
    let mut reader = Reader::new(&Settings::default());
    reader.authorize();
    reader
}

fn read_by(reader: &mut Reader, input: &[u8], step: usize) -> Result<Vec<RawMessage>, ProtocolError> {
    let (now, mut out) = (Instant::now(), Vec::new());
    for segment in input.chunks(step.max(1)) {
        reader.handle(now, segment, &mut out)?;
    }
    Ok(out)
}

fn read(input: &[u8]) -> Result<Vec<RawMessage>, ProtocolError> {
    read_by(&mut reader(), input, usize::MAX)
}

/// A header of any format, with a one-byte id.
struct Head {
    format: u8,
    id: u8,
    time: u32,
    length: u32,
    kind: u8,
    stream_id: u32,
}

const HEAD: Head = Head { format: 0, id: 4, time: 0, length: 0, kind: 9, stream_id: 1 };

impl Head {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.format << 6 | self.id];
        if self.format < 3 {
            out.extend(&self.time.min(0xff_ffff).to_be_bytes()[1..]);
        }
        if self.format < 2 {
            out.extend(&self.length.to_be_bytes()[1..]);
            out.push(self.kind);
        }
        if self.format < 1 {
            out.extend(self.stream_id.to_le_bytes());
        }
        if self.format < 3 && self.time >= 0xff_ffff {
            out.extend(self.time.to_be_bytes());
        }
        out
    }

    fn with(&self, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&Head { length, ..*self }.bytes()[..], body].concat()
    }
}

fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    Head { id: 2, kind, stream_id: 0, ..HEAD }.with(body)
}

fn times(messages: &[RawMessage]) -> Vec<u64> {
    messages.iter().map(|m| m.timestamp_ms).collect()
}

const HEADER: ProtocolError = ProtocolError::Illegal("chunk_header");
const INTERRUPTED: ProtocolError = ProtocolError::Illegal("message_interrupted");

#[test]
fn rt_15_every_form_of_an_id_means_the_same() {
    let rest = &HEAD.with(b"x")[1..];
    let mut reader = reader();
    let mut ids = |basic: &[u8]| {
        let messages = read_by(&mut reader, &[basic, rest].concat(), 1).unwrap();
        assert_eq!(&messages[0].payload[..], b"x");
        messages[0].chunk_stream
    };
    assert_eq!(ids(&[2]), 2);
    assert_eq!(ids(&[63]), 63);
    assert_eq!(ids(&[0, 0]), 64);
    assert_eq!(ids(&[1, 0, 0]), 64);
    assert_eq!(ids(&[0, 255]), 319);
    assert_eq!(ids(&[1, 255, 0]), 319);
    assert_eq!(ids(&[1, 0, 1]), 320);
    assert_eq!(ids(&[1, 255, 255]), 65_599);
    // And the state is shared between the forms.
    assert_eq!(ids(&[0, 0]), 64);
    assert_eq!(reader.streams.len(), 6);
}

#[test]
fn rt_15_ids_are_written_in_their_shortest_form() {
    for (id, basic) in [
        (2, &[2][..]),
        (63, &[63]),
        (64, &[0, 0]),
        (319, &[0, 255]),
        (320, &[1, 0, 1]),
        (65_599, &[1, 255, 255]),
        // Brought inside.
        (0, &[2]),
        (u32::MAX, &[1, 255, 255]),
    ] {
        let mut out = Vec::new();
        write_message(&mut out, 1, id, 9, 1, 0, b"ab");
        assert!(out.starts_with(basic));
        let messages = read_by(&mut reader(), &[&control(1, &[0, 0, 0, 1])[..], &out].concat(), 1).unwrap();
        assert_eq!(messages[0].chunk_stream, id.clamp(2, 65_599));
        assert_eq!(&messages[0].payload[..], b"ab");
    }
}

#[test]
fn rt_16_the_65th_chunk_stream_closes() {
    let mut reader = reader();
    for id in 0..64 {
        read_by(&mut reader, &[&[1, id, 0], &HEAD.with(b"x")[1..]].concat(), 100).unwrap();
    }
    assert_eq!(read_by(&mut reader, &[1, 64, 0], 100), Err(ProtocolError::Limit("chunk_streams")));
}

#[test]
fn rt_17_claimed_length_holds_no_memory() {
    let too_long = Head { length: 0xff_ffff, ..HEAD }.bytes();
    assert_eq!(read(&too_long), Err(ProtocolError::Limit("message_size")));

    let mut reader = reader();
    let claimed = Head { length: 8 << 20, ..HEAD }.bytes();
    read_by(&mut reader, &claimed, 1).unwrap();
    assert_eq!(reader.partial_bytes(), 0);
    let mut received = 0;
    for _ in 0..1000 {
        let chunk = [&[7; 128][..], &[0xc4]].concat();
        read_by(&mut reader, &chunk, 100).unwrap();
        received += 128;
        assert!(reader.partial_bytes() >= received);
        assert!(reader.partial_bytes() <= 2 * received + 8192, "{} of {received}", reader.partial_bytes());
    }
}

#[test]
fn rt_17_many_unfinished_messages_hold_no_more_than_one() {
    let mut reader = reader();
    let mut received = 0;
    for round in 0..20 {
        for id in 3..63 {
            let head = Head { id, length: 1 << 20, ..HEAD }.bytes();
            let head = if round == 0 { head } else { vec![0xc0 | id] };
            read_by(&mut reader, &[&head[..], &[0; 128]].concat(), 1000).unwrap();
            received += 128;
            let states = reader.streams.capacity() * size_of::<ChunkStream>();
            assert!(reader.partial_bytes() + states <= 2 * received + 8192);
        }
    }
    // Whoever leaves takes its share along.
    for id in 3..63 {
        read_by(&mut reader, &control(2, &[0, 0, 0, id]), 1000).unwrap();
        received -= 20 * 128;
        assert!(reader.partial_bytes() <= 2 * received + 8192);
    }
    assert_eq!(reader.partial_bytes(), 0);
}

#[test]
fn rt_17_message_size_is_by_type() {
    for (kind, limit) in [
        (8, 1 << 20),
        (9, 8 << 20),
        (18, 256 << 10),
        (15, 256 << 10),
        (20, 64 << 10),
        (17, 64 << 10),
        (22, 8 << 20),
        (4, 64 << 10),
        (99, 64 << 10),
    ] {
        for format in [0, 1] {
            assert_eq!(read(&Head { format, kind, length: limit, ..HEAD }.bytes()), Ok(vec![]));
            let over = Head { format, kind, length: limit + 1, ..HEAD }.bytes();
            assert_eq!(read(&over), Err(ProtocolError::Limit("message_size")));
        }
    }
}

#[test]
fn rt_17_an_unfinished_message_has_a_deadline() {
    let (start, mut out) = (Instant::now(), Vec::new());
    let at = |s| start + Duration::from_secs(s);
    let mut reader = reader();
    assert_eq!(reader.message_deadline(), None);
    reader.handle(at(1), &Head { length: 10, ..HEAD }.bytes(), &mut out).unwrap();
    reader.handle(at(2), b"12345", &mut out).unwrap();
    // A byte does not extend it, and a younger message does not hide it.
    assert_eq!(reader.message_deadline(), Some(at(31)));
    reader.handle(at(3), b"6789", &mut out).unwrap();
    assert_eq!(reader.message_deadline(), Some(at(31)));
    reader.handle(at(4), b"0", &mut out).unwrap();
    assert_eq!(reader.message_deadline(), None);
    assert_eq!(out.len(), 1);
}

#[test]
fn rt_18_unfinished_messages_are_limited_together() {
    let chunk = |id| [&Head { id, length: 60_000, ..HEAD }.bytes()[..], &vec![0; 50_000]].concat();
    let input = [control(1, &[0, 0, 0xc3, 0x50]), chunk(3), chunk(4)].concat();
    for step in [1, 1000, usize::MAX] {
        let mut before = Reader::new(&Settings::default());
        assert_eq!(read_by(&mut before, &input, step), Err(ProtocolError::Limit("partial_bytes")));
        assert_eq!(read_by(&mut reader(), &input, step), Ok(vec![]));
    }
    // A finished message no longer counts.
    let mut before = Reader::new(&Settings::default());
    let whole = [control(1, &[0, 1, 0, 0]), HEAD.with(&vec![0; 60_000]).repeat(10)].concat();
    assert_eq!(read_by(&mut before, &whole, 999).unwrap().len(), 10);
}

#[test]
fn rt_19_a_compressed_header_on_a_fresh_id_closes() {
    for format in [2, 3] {
        // At the byte that tells.
        assert_eq!(read(&[format << 6 | 4]), Err(HEADER));
    }
}

#[test]
fn rt_20_type_1_on_a_fresh_id_is_absolute() {
    let first = Head { format: 1, time: 1234, ..HEAD }.with(b"x");
    let second = Head { format: 1, time: 40, ..HEAD }.with(b"yy");
    let messages = read(&[first, second].concat()).unwrap();
    assert_eq!(times(&messages), [1234, 1274]);
    assert_eq!(messages[0].stream_id, 0);
}

#[test]
fn rt_21_a_new_header_inside_a_message_closes() {
    let begun = [&Head { length: 200, ..HEAD }.bytes()[..], &[0; 128]].concat();
    for format in [0, 1, 2] {
        assert_eq!(read(&[&begun[..], &[format << 6 | 4]].concat()), Err(INTERRUPTED));
    }
    // Also when not one byte of the body came, which a type 3 header then goes on with.
    let messages = read(&[&begun[..], &[0xc4], &[0; 72]].concat()).unwrap();
    assert_eq!(messages[0].payload.len(), 200);
}

#[test]
fn rt_22_empty_messages_are_delivered_empty() {
    let messages = read(&[HEAD.bytes(), vec![0xc4], Head { format: 1, ..HEAD }.with(b"x")].concat()).unwrap();
    let lengths: Vec<_> = messages.iter().map(|m| m.payload.len()).collect();
    assert_eq!(lengths, [0, 0, 1]);
}

#[test]
fn rt_23_an_illegal_chunk_size_closes() {
    let illegal = Err(ProtocolError::Illegal("chunk_size"));
    for body in [&[0, 0, 0, 0][..], &[0x80, 0, 0, 0], &[0xff; 4], &[], &[1], &[0, 1], &[0, 0, 1]] {
        assert_eq!(read(&control(1, body)), illegal, "{body:?}");
    }
}

#[test]
fn rt_24_strange_chunk_sizes_are_glitches() {
    let mut reader = reader();
    let mut glitches = |size: u32| {
        let mut change = Vec::new();
        write_message(&mut change, to_usize(reader.chunk_size()), 2, 1, 0, 0, &size.to_be_bytes());
        assert_eq!(read_by(&mut reader, &change, 100), Ok(vec![]));
        assert_eq!((reader.chunk_size(), reader.partial_bytes()), (size, 0));
        reader.take_glitches().total()
    };
    assert_eq!([1, 127].map(&mut glitches), [1, 1]);
    assert_eq!([128, 4096, 65_536, 0x7fff_ffff].map(&mut glitches), [0; 4]);
}

#[test]
fn rt_24_a_hundred_chunk_size_changes_are_glitches_beyond_sixteen() {
    let (mut reader, now, mut out) = (reader(), Instant::now(), Vec::new());
    let change = control(1, &[0, 0, 1, 0]);
    reader.handle(now, &change.repeat(100), &mut out).unwrap();
    assert_eq!(reader.take_glitches().total(), 84);
    reader.handle(now + Duration::from_secs(10), &change.repeat(16), &mut out).unwrap();
    assert_eq!(reader.take_glitches().total(), 0);
}

#[test]
fn rt_24_the_new_chunk_size_holds_for_the_next_chunk() {
    let input = [
        Head { length: 300, ..HEAD }.bytes(),
        vec![1; 128],
        control(1, &[0, 0, 0, 150]),
        vec![0xc4],
        vec![2; 150],
        vec![0xc4],
        vec![3; 22],
    ]
    .concat();
    for step in [1, 7, usize::MAX] {
        let messages = read_by(&mut reader(), &input, step).unwrap();
        assert_eq!(&messages[0].payload[..], [vec![1; 128], vec![2; 150], vec![3; 22]].concat());
    }
}

#[test]
fn rt_25_long_control_bodies_are_cut_and_short_ones_close() {
    let mut reader = reader();
    read_by(&mut reader, &control(1, &[0, 0, 1, 0, 9, 9]), 100).unwrap();
    assert_eq!((reader.chunk_size(), reader.take_glitches().total()), (256, 1));
    read_by(&mut reader, &control(2, &[0, 0, 0, 4, 9]), 100).unwrap();
    assert_eq!(reader.take_glitches().total(), 1);
    assert_eq!(read(&control(2, &[0, 0, 4])), Err(ProtocolError::Illegal("abort")));
}

#[test]
fn rt_26_abort_frees_the_message_at_once() {
    let (mut reader, now, mut out) = (reader(), Instant::now(), Vec::new());
    let begun = [&Head { length: 200, ..HEAD }.bytes()[..], &[0; 128]].concat();
    reader.handle(now, &begun, &mut out).unwrap();
    assert!(reader.partial_bytes() >= 128);
    reader.handle(now, &control(2, &[0, 0, 0, 4]), &mut out).unwrap();
    assert_eq!((reader.partial_bytes(), reader.message_deadline()), (0, None));
    // The id goes on with a new message.
    reader.handle(now, &HEAD.with(b"x"), &mut out).unwrap();
    assert_eq!(&out[0].payload[..], b"x");

    // Nothing there, or an id never seen: ignored. Many: glitches.
    for id in [4, 2, 50, 0xff] {
        reader.handle(now, &control(2, &[0, 0, 0, id]), &mut out).unwrap();
    }
    assert_eq!(reader.take_glitches().total(), 0);
    reader.handle(now, &control(2, &[0, 0, 0, 4]).repeat(100), &mut out).unwrap();
    assert_eq!(reader.take_glitches().total(), 100 + 5 - 16);
}

#[test]
fn rt_31_unknown_types_are_glitches() {
    let mut reader = reader();
    for kind in 3..=255 {
        let messages = read_by(&mut reader, &Head { kind, ..HEAD }.with(b"x"), 100).unwrap();
        assert_eq!(messages[0].type_id, kind);
        let unknown = matches!(kind, 0 | 7 | 10..=14 | 21 | 23..);
        assert_eq!(reader.take_glitches().total(), u32::from(unknown), "{kind}");
    }
}

#[test]
fn rt_37_the_extended_time_may_be_repeated_or_not() {
    let body: Vec<u8> = (0..=255).collect();
    for time in [0xff_ffff, 0x0100_0000, 0x1234_5678, u32::MAX] {
        let first = [&Head { time, length: 256, ..HEAD }.bytes()[..], &body[..128]].concat();
        for repeated in [&time.to_be_bytes()[..], &[]] {
            let input = [&first[..], &[0xc4], repeated, &body[128..]].concat();
            for step in 1..20 {
                let messages = read_by(&mut reader(), &input, step).unwrap();
                assert_eq!(messages[0].payload, body);
                assert_eq!(times(&messages), [u64::from(time)]);
            }
        }
    }
}

#[test]
fn rt_37_a_body_that_begins_like_the_time_is_told_apart() {
    // Three bytes of the time and then something else, and a body of two bytes before another header.
    let time = 0x0102_0304_u32;
    for tail in [&[1, 2, 3, 9, 9][..], &[1, 2], &[1]] {
        let length = 128 + u32::try_from(tail.len()).unwrap();
        let next = Head { id: 5, ..HEAD }.with(b"next");
        let input = [&Head { time, length, ..HEAD }.bytes()[..], &[0; 128], &[0xc4], tail, &next].concat();
        for step in 1..20 {
            let messages = read_by(&mut reader(), &input, step).unwrap();
            assert_eq!(&messages[0].payload[128..], tail);
            assert_eq!(&messages[1].payload[..], b"next");
        }
    }
}

#[test]
fn rt_37_extended_deltas_are_repeated_too() {
    let input = [
        HEAD.with(b"a"),
        Head { format: 1, time: 0x0100_0000, length: 130, ..HEAD }.bytes(),
        vec![0; 128],
        vec![0xc4, 1, 0, 0, 0, 5, 5],
        // A new message with the same delta.
        vec![0xc4, 1, 0, 0, 0],
        vec![0; 128],
        vec![0xc4, 1, 0, 0, 0, 5, 5],
    ]
    .concat();
    let messages = read(&input).unwrap();
    assert_eq!(times(&messages), [0, 0x0100_0000, 0x0200_0000]);
    assert_eq!(&messages[1].payload[126..], [0, 0, 5, 5]);
}

#[test]
fn rt_38_time_is_unwrapped_to_64_bits() {
    let at = |time| Head { time, ..HEAD }.with(b"x");
    let plus = |time| Head { format: 2, time, ..HEAD }.bytes();
    let x = b"x".to_vec();
    let day = 86_400_000;
    for (input, expected) in [
        // Around the wrap, by absolute times and by deltas.
        (vec![at(0xffff_fff0), at(0x10)], vec![0xffff_fff0, 0x1_0000_0010]),
        (vec![at(0xffff_fff0), plus(0x20), x.clone()], vec![0xffff_fff0, 0x1_0000_0010]),
        (vec![at(0xffff_fff0), at(0x10), at(0xffff_fff8)], vec![0xffff_fff0, 0x1_0000_0010, 0xffff_fff8]),
        // Around the 24-bit boundary.
        (
            vec![at(0xff_fffe), plus(1), x.clone(), vec![0xc4], x.clone(), at(0x0100_0001)],
            vec![0xff_fffe, 0xff_ffff, 0x0100_0000, 0x0100_0001],
        ),
        // Jumps.
        (vec![at(7_200_000), at(3_600_000)], vec![7_200_000, 3_600_000]),
        (vec![at(0), at(day), plus(day), x.clone()], vec![0, u64::from(day), 2 * u64::from(day)]),
        // A delta that wraps is a step back; none leads before zero.
        (vec![at(100), plus(0xffff_fff6), x.clone()], vec![100, 90]),
        (vec![at(5), plus(0xffff_fff6), x.clone()], vec![5, 0xffff_fffb]),
        (vec![at(5), at(0xffff_fffb)], vec![5, 0xffff_fffb]),
    ] {
        assert_eq!(times(&read(&input.concat()).unwrap()), expected);
    }
}

#[test]
fn rt_38_type_3_repeats_the_last_delta() {
    let again = [0xc4, b'x'];
    let input = [
        Head { time: 100, ..HEAD }.with(b"x"),
        Head { format: 1, time: 20, ..HEAD }.with(b"x"),
        again.to_vec(),
        Head { format: 2, time: 23, ..HEAD }.bytes(),
        b"x".to_vec(),
        again.to_vec(),
        again.to_vec(),
    ]
    .concat();
    assert_eq!(times(&read(&input).unwrap()), [100, 120, 140, 163, 186, 209]);
    // After type 0 the time itself is the delta.
    let input = [Head { time: 100, ..HEAD }.with(b"x"), again.to_vec()].concat();
    assert_eq!(times(&read(&input).unwrap()), [100, 200]);
}

#[test]
fn interleaved_messages_come_out_as_they_end() {
    let long = [&Head { length: 256, time: 5, ..HEAD }.bytes()[..], &[1; 128]].concat();
    let audio = Head { id: 6, kind: 8, time: 6, ..HEAD }.with(b"aa");
    let input = [&long[..], &audio, &[0xc6], b"bb", &[0xc4], &[2; 128]].concat();
    for step in 1..50 {
        let messages = read_by(&mut reader(), &input, step).unwrap();
        let seen: Vec<_> = messages.iter().map(|m| (m.type_id, m.timestamp_ms, m.payload.len())).collect();
        assert_eq!(seen, [(8, 6, 2), (8, 12, 2), (9, 5, 256)]);
    }
}

#[test]
fn a_reader_before_its_first_byte_holds_little() {
    // Ten thousand players each have one.
    assert!(size_of::<Reader>() <= 256, "{}", size_of::<Reader>());
    assert!(size_of::<ChunkStream>() <= 72, "{}", size_of::<ChunkStream>());
}

#[test]
fn a_peer_reads_what_we_write() {
    let mut peer = ChunkDeserializer::new();
    peer.set_max_chunk_size(100).unwrap();
    for (time, length) in [(0, 1), (40, 99), (80, 100), (0xff_ffff, 101), (0x0100_0000, 1000), (1 << 32, 50)] {
        let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 256).unwrap()).collect();
        let mut out = Vec::new();
        write_message(&mut out, 100, 6, 9, 1, time, &payload);
        let message = peer.get_next_message(&out).unwrap().unwrap();
        assert_eq!(message.timestamp.value, u32::try_from(time % (1 << 32)).unwrap());
        assert_eq!((message.type_id, message.message_stream_id), (9, 1));
        assert_eq!(message.data, payload);
    }
}

/// A message of a well-behaved publisher.
fn messages() -> impl Strategy<Value = Vec<(u8, u32, u32, Vec<u8>)>> {
    let kind = prop_oneof![Just(8_u8), Just(9), Just(18), Just(20)];
    let step = prop_oneof![0_u32..100, Just(0x0100_0000)];
    let body = prop::collection::vec(any::<u8>(), 1..600);
    prop::collection::vec((kind, step, 0_u32..3, body), 1..12)
}

proptest! {
    #[test]
    fn rt_39_any_segmentation_gives_the_same_messages(
        messages in messages(),
        chunk_size in 1_usize..300,
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let mut bytes = control(1, &u32::try_from(chunk_size).unwrap().to_be_bytes());
        let mut time = 0_u64;
        for (kind, step, stream, body) in &messages {
            time += u64::from(*step);
            write_message(&mut bytes, chunk_size, u32::from(*kind), *kind, *stream, time, body);
        }
        let whole = read(&bytes).unwrap();
        let (mut reader, mut rest, mut out) = (reader(), &bytes[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (now, after) = rest.split_at(rest.len().min(*cut));
            reader.handle(Instant::now(), now, &mut out).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&out, &whole);
        prop_assert_eq!(out.len(), messages.len());
        prop_assert_eq!(reader.partial_bytes(), 0);
        let mut time = 0_u64;
        for (message, (kind, step, stream, body)) in out.iter().zip(&messages) {
            time += u64::from(*step);
            prop_assert_eq!((message.type_id, message.stream_id, message.timestamp_ms), (*kind, *stream, time));
            prop_assert_eq!(&message.payload[..], &body[..]);
        }
    }

    #[test]
    fn any_bytes_give_the_same_result_in_any_segmentation(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xc4), Just(4), any::<u8>()], 0..300),
        step in 1_usize..20,
    ) {
        let now = Instant::now();
        let run = |step: usize| {
            let (mut reader, mut out) = (reader(), Vec::new());
            let result = bytes.chunks(step).try_for_each(|segment| reader.handle(now, segment, &mut out));
            (out, result, reader.take_glitches().total())
        };
        prop_assert_eq!(run(step), run(usize::MAX));
    }

    #[test]
    fn we_read_what_a_peer_writes(messages in messages(), chunk_size in 128_u32..500) {
        let mut peer = ChunkSerializer::new();
        let mut bytes = peer.set_max_chunk_size(chunk_size, RtmpTimestamp::new(0)).unwrap().bytes;
        let mut expected = Vec::new();
        let mut time = 0;
        for (kind, step, stream, body) in messages {
            // Its deltas are not ours beyond 24 bits.
            time += step % 1000;
            let payload = MessagePayload {
                timestamp: RtmpTimestamp::new(time),
                type_id: kind,
                message_stream_id: stream,
                data: Bytes::from(body.clone()),
            };
            // With all four header types, as they save most.
            bytes.extend(peer.serialize(&payload, false, false).unwrap().bytes);
            expected.push((kind, stream, u64::from(time), body));
        }
        let read: Vec<_> = read(&bytes)
            .unwrap()
            .into_iter()
            .map(|m| (m.type_id, m.stream_id, m.timestamp_ms, m.payload.to_vec()))
            .collect();
        prop_assert_eq!(read, expected);
    }
}
