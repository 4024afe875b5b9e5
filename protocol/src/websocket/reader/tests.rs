use proptest::prelude::*;

use super::*;

const LIMITS: ReadLimits = ReadLimits { message_bytes_max: 1000, fragments_max: 128, deflate: false };

#[test]
fn a_message_in_one_frame_is_lent_and_leaves_nothing_behind() {
    let mut bytes = frame(true, 0x1, b"hello");
    let mut reader = Reader::default();
    let mut input = &mut bytes[..];
    assert_eq!(reader.next(&mut input, &LIMITS), Some(Incoming::Text(Cow::Borrowed("hello"))));
    assert_eq!(reader.next(&mut input, &LIMITS), None);
    assert!(reader.partial.is_none());
    assert_eq!(size_of::<Reader>(), size_of::<usize>());
}

#[test]
fn fragments_with_a_ping_between_them_are_one_message() {
    let bytes =
        [frame(false, 0x1, b"he"), frame(true, 0x9, b"p"), frame(false, 0x0, b""), frame(true, 0x0, b"y")].concat();
    let expected = [
        Incoming::Part { empty: false },
        Incoming::Ping(Cow::Borrowed(b"p")),
        Incoming::Part { empty: true },
        Incoming::Text(Cow::Borrowed("hey")),
    ];
    assert_eq!(read_all(&bytes, &[]), expected);
}

#[test]
fn rules_of_frames_are_kept() {
    let protocol: [Vec<u8>; 15] = [
        vec![0x81, 0x01, b'x'],
        frame_of(0x80 | 0x40 | 0x1, b"x"),
        frame_of(0x80 | 0x20 | 0x1, b"x"),
        frame_of(0x80 | 0x10 | 0x1, b"x"),
        frame(true, 0x3, b""),
        frame(true, 0xB, b""),
        frame(false, 0x9, b""),
        frame(true, 0x9, &[0; 126]),
        frame(true, 0x0, b"x"),
        [frame(false, 0x1, b"x"), frame(true, 0x1, b"x")].concat(),
        [frame(false, 0x2, b"x"), frame(false, 0x2, b"x")].concat(),
        vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        frame(true, 0x8, &[3]),
        frame(true, 0x8, &999_u16.to_be_bytes()),
        [frame(false, 0x1, b"x"), frame_of(0x80 | 0x40, b"x")].concat(),
    ];
    for bytes in protocol {
        broken(&bytes, CloseCode::Protocol);
    }
}

#[test]
fn close_codes_that_may_be_sent() {
    for code in (0..=5100_u16).filter(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)) {
        let close = frame(true, 0x8, &[&code.to_be_bytes()[..], b"bye"].concat());
        assert_eq!(read_all(&close, &[]), [Incoming::Close(Some(code), Cow::Borrowed("bye"))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
        broken(&frame(true, 0x8, &code.to_be_bytes()), CloseCode::Protocol);
    }
    assert_eq!(read_all(&frame(true, 0x8, b""), &[]), [Incoming::Close(None, Cow::Borrowed(""))]);
    broken(&frame(true, 0x8, &[3, 232, 0xFF]), CloseCode::NotUtf8);
}

#[test]
fn text_that_is_not_utf8_fails_at_its_first_wrong_byte() {
    broken(&frame(true, 0x1, &[0xC3, 0x28]), CloseCode::NotUtf8);
    // The message would go on, and the character, too; neither can become valid any more.
    broken(&frame(false, 0x1, &[b'a', 0xF5]), CloseCode::NotUtf8);
    broken(&[frame(false, 0x1, &[0xE2, 0x82]), frame(false, 0x0, &[0x28])].concat(), CloseCode::NotUtf8);
    broken(&[frame(false, 0x1, &[0xE2, 0x82]), frame(true, 0x0, b"")].concat(), CloseCode::NotUtf8);
    let euro = [frame(false, 0x1, &[0xE2, 0x82]), frame(true, 0x0, &[0xAC])].concat();
    assert_eq!(read_all(&euro, &[]).pop(), Some(Incoming::Text(Cow::Borrowed("€"))));
    // Half of a frame is enough to know.
    let half = &frame(true, 0x1, &[b'a', 0xFF, b'b', b'c'])[..6 + 2];
    broken(half, CloseCode::NotUtf8);
}

#[test]
fn a_length_over_the_bound_is_refused_at_the_header() {
    let limit = LIMITS.message_bytes_max;
    assert_eq!(read_all(&frame(true, 0x2, &vec![7; limit]), &[]).len(), 1);
    broken(&frame(true, 0x2, &vec![7; limit + 1])[..8], CloseCode::TooBig);
    broken(&[frame(false, 0x2, &vec![7; limit]), frame(true, 0x0, b"x")].concat(), CloseCode::TooBig);
    broken(&[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0], CloseCode::TooBig);
}

#[test]
fn a_declared_length_reserves_nothing() {
    let limits = ReadLimits { message_bytes_max: 1 << 40, ..LIMITS };
    let mut bytes = [&[0x82, 0xFF][..], &(1_u64 << 39).to_be_bytes(), &[0; 4], &[1; 100]].concat();
    let mut reader = Reader::default();
    assert_eq!(reader.next(&mut &mut bytes[..], &limits), None);
    let kept = reader.partial.expect("a frame has begun");
    assert!(kept.message.expect("of a message").len() == 100);
}

#[test]
fn fragments_are_counted() {
    let parts = |count: usize| {
        let mut bytes = frame(false, 0x1, b"");
        (2..count).for_each(|_| bytes.extend(frame(false, 0x0, b"")));
        bytes.extend(frame(true, 0x0, b""));
        bytes
    };
    assert_eq!(read_all(&parts(128), &[]).last(), Some(&Incoming::Text(Cow::Borrowed(""))));
    broken(&parts(129), CloseCode::Policy);
}

#[test]
fn is_within_a_message_from_its_first_byte_to_its_last() {
    let mut reader = Reader::default();
    let mut feed = |mut bytes: Vec<u8>| {
        let mut input = &mut bytes[..];
        while reader.next(&mut input, &LIMITS).is_some() {}
        reader.is_within_message()
    };
    assert!(!feed(frame(true, 0x1, b"x")));
    assert!(feed(frame(true, 0x1, b"xyz")[..7].to_vec()), "one frame in two pieces");
    assert!(!feed(masked(b"yz", 1)));
    assert!(feed(frame(false, 0x1, b"x")));
    assert!(feed(frame(true, 0x9, b"x")));
    assert!(!feed(frame(true, 0x0, b"x")));
}

#[test]
fn compressed_messages_need_the_extension() {
    let limits = ReadLimits { deflate: true, ..LIMITS };
    let read = |mut bytes: Vec<u8>| {
        let mut reader = Reader::default();
        reader.next(&mut &mut bytes[..], &limits).map(owned)
    };
    let deflated = Incoming::Deflated { text: true, payload: Cow::Borrowed(&[0xFF, 0xFE]) };
    assert_eq!(read(frame_of(0x80 | 0x40 | 0x1, &[0xFF, 0xFE])), Some(deflated));
    assert!(matches!(read(frame_of(0x80 | 0x40 | 0x9, b"")), Some(Incoming::Broken(CloseCode::Protocol, _))));
    assert!(matches!(read(frame_of(0x80 | 0x20 | 0x1, b"")), Some(Incoming::Broken(CloseCode::Protocol, _))));
}

proptest! {
    /// Wherever the network cuts a stream, it says the same.
    #[test]
    fn any_split_gives_the_same(frames in frames(), cuts in proptest::collection::vec(0_usize..4000, 0..40)) {
        let bytes: Vec<u8> = frames.iter().flat_map(Sent::encode).collect();
        let whole = read_all(&bytes, &[]);
        prop_assert_eq!(&whole, &expected(&frames));
        prop_assert_eq!(&read_all(&bytes, &cuts), &whole);
        let each: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&read_all(&bytes, &each), &whole);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec(0_usize..600, 0..10),
        deflate in any::<bool>(),
    ) {
        let limits = ReadLimits { deflate, ..LIMITS };
        let all = read_with(&bytes, &[], &limits);
        let split = read_with(&bytes, &cuts, &limits);
        // A wrong byte may be told before or after the frame it is in has come: what came before it is the same.
        prop_assert_eq!(kinds(&all), kinds(&split));
    }

    /// Frames that begin well reach deeper than bytes that are wrong at once.
    #[test]
    fn frames_of_anything_do_no_harm(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..140)), 0..12),
        cuts in proptest::collection::vec(0_usize..1500, 0..10),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame_of(*first & 0x8F, payload)).collect();
        prop_assert_eq!(kinds(&read_all(&bytes, &[])), kinds(&read_all(&bytes, &cuts)));
    }
}

/// What a client sends: a message in fragments, or a control frame.
#[derive(Debug, Clone)]
enum Sent {
    Message { text: bool, bytes: Vec<u8>, parts: Vec<usize>, pings: bool },
    Ping(Vec<u8>),
    Pong,
}

impl Sent {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ping(payload) => frame(true, 0x9, payload),
            Self::Pong => frame(true, 0xA, b""),
            Self::Message { text, bytes, parts, pings } => {
                let (mut out, mut opcode) = (Vec::new(), if *text { 0x1 } else { 0x2 });
                let pieces = pieces(bytes, parts);
                for (at, piece) in pieces.iter().enumerate() {
                    out.extend(frame(at + 1 == pieces.len(), opcode, piece));
                    opcode = 0x0;
                    if *pings && at + 1 < pieces.len() {
                        out.extend(frame(true, 0x9, b"mid"));
                    }
                }
                out
            }
        }
    }
}

fn frames() -> impl Strategy<Value = Vec<Sent>> {
    let parts = || proptest::collection::vec(0_usize..300, 0..6);
    let text = (".{0,150}", parts(), any::<bool>()).prop_map(|(text, parts, pings)| Sent::Message {
        text: true,
        bytes: text.into_bytes(),
        parts,
        pings,
    });
    let binary = (proptest::collection::vec(any::<u8>(), 0..300), parts(), any::<bool>())
        .prop_map(|(bytes, parts, pings)| Sent::Message { text: false, bytes, parts, pings });
    let ping = proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Sent::Ping);
    proptest::collection::vec(prop_oneof![text, binary, ping, Just(Sent::Pong)], 0..8)
}

fn expected(frames: &[Sent]) -> Vec<Incoming<'static>> {
    let mut expected = Vec::new();
    for sent in frames {
        match sent {
            Sent::Ping(payload) => expected.push(Incoming::Ping(Cow::Owned(payload.clone()))),
            Sent::Pong => expected.push(Incoming::Pong),
            Sent::Message { text, bytes, parts, pings } => {
                let pieces = pieces(bytes, parts);
                for piece in &pieces[..pieces.len() - 1] {
                    expected.push(Incoming::Part { empty: piece.is_empty() });
                    if *pings {
                        expected.push(Incoming::Ping(Cow::Borrowed(b"mid")));
                    }
                }
                expected.push(match text {
                    true => Incoming::Text(Cow::Owned(String::from_utf8(bytes.clone()).unwrap())),
                    false => Incoming::Binary(Cow::Owned(bytes.clone())),
                });
            }
        }
    }
    expected
}

/// Cuts bytes at the places that lie within.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().copied().filter(|cut| *cut <= bytes.len()).collect();
    cuts.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for cut in cuts {
        pieces.push(&bytes[from..cut]);
        from = cut;
    }
    pieces.push(&bytes[from..]);
    pieces
}

fn read_all(bytes: &[u8], cuts: &[usize]) -> Vec<Incoming<'static>> {
    read_with(bytes, cuts, &LIMITS)
}

fn read_with(bytes: &[u8], cuts: &[usize], limits: &ReadLimits) -> Vec<Incoming<'static>> {
    let (mut reader, mut all) = (Reader::default(), Vec::new());
    for piece in pieces(bytes, cuts) {
        let mut scratch = piece.to_vec();
        let mut input = &mut scratch[..];
        while let Some(incoming) = reader.next(&mut input, limits) {
            let last = matches!(incoming, Incoming::Close(..) | Incoming::Broken(..));
            all.push(owned(incoming));
            if last {
                return all;
            }
        }
        assert!(input.is_empty(), "nothing is left unread");
    }
    all
}

fn kinds(all: &[Incoming<'_>]) -> Vec<Incoming<'static>> {
    let kind = |incoming: &Incoming<'_>| match incoming {
        Incoming::Broken(code, _) => Incoming::Broken(*code, String::new()),
        other => owned(other.clone()),
    };
    all.iter().map(kind).collect()
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Text(text) => Incoming::Text(Cow::Owned(text.into_owned())),
        Incoming::Binary(bytes) => Incoming::Binary(Cow::Owned(bytes.into_owned())),
        Incoming::Deflated { text, payload } => Incoming::Deflated { text, payload: Cow::Owned(payload.into_owned()) },
        Incoming::Part { empty } => Incoming::Part { empty },
        Incoming::Ping(payload) => Incoming::Ping(Cow::Owned(payload.into_owned())),
        Incoming::Pong => Incoming::Pong,
        Incoming::Close(code, reason) => Incoming::Close(code, Cow::Owned(reason.into_owned())),
        Incoming::Broken(code, reason) => Incoming::Broken(code, reason),
    }
}

fn broken(bytes: &[u8], code: CloseCode) {
    let last = read_all(bytes, &[]).pop();
    assert!(matches!(last, Some(Incoming::Broken(found, _)) if found == code), "{bytes:?}: {last:?}, not {code:?}");
}

fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(if fin { 0x80 } else { 0 } | opcode, payload)
}

const MASK: [u8; 4] = [0xA1, 0x02, 0xFC, 0x3D];

fn frame_of(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(masked(payload, 0));
    out
}

fn masked(payload: &[u8], from: usize) -> Vec<u8> {
    payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[(from + at) % 4]).collect()
}
