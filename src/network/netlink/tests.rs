use super::*;

fn message_of(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    pad(&mut bytes);
    bytes
}

#[test]
fn attributes_are_padded_and_the_lengths_are_not() {
    let request = Request::new(19, &[7; 16]).name(3, "eth0").number(49, 5);
    let bytes = request.bytes(9);
    assert_eq!(word(&bytes, 0), Some(bytes.len() as u32));
    assert_eq!(word(&bytes, 8), Some(9));
    let attributes: Vec<_> = Attributes(&bytes[HEADER + 16..]).collect();
    let five = 5u32.to_ne_bytes();
    assert_eq!(attributes, [(3, &b"eth0\0"[..]), (49, &five[..])]);
}

#[test]
fn answers_end_with_an_acknowledgement() {
    let mut reader = Reader::new(2);
    let old = message_of(16, 0, 1, b"late");
    assert!(reader.read(&old).is_none());
    let mut datagram = message_of(16, 0, 2, b"answer");
    datagram.extend(message_of(2, 0, 2, &0u32.to_ne_bytes()));
    assert_eq!(reader.read(&datagram), Some(Ok(())));
    assert_eq!(reader.answers, [b"answer".to_vec()]);
}

#[test]
fn an_interrupted_dump_is_known() {
    let mut reader = Reader::new(2);
    assert!(reader.read(&message_of(16, 0x12, 2, b"x")).is_none());
    assert_eq!(reader.read(&message_of(3, 2, 2, &[0; 4])), Some(Ok(())));
    assert!(reader.interrupted);
}

#[test]
fn refusals_come_with_the_kernels_words() {
    let mut payload = (-(Errno::EINVAL as i32)).to_ne_bytes().to_vec();
    payload.extend([0; HEADER]);
    payload.extend(9u16.to_ne_bytes());
    payload.extend(1u16.to_ne_bytes());
    payload.extend(b"why?\0");
    for (flags, words) in [(0x300, Some("why?")), (0x100, None)] {
        let refused = Reader::new(1).read(&message_of(2, flags, 1, &payload));
        let words = words.map(str::to_owned);
        let errno = Errno::EINVAL;
        assert_eq!(refused, Some(Err(Refusal { errno, words })));
    }
}

/// Whatever comes in: no panic, no endless loop.
#[test]
fn arbitrary_bytes_are_survived() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20_000 {
        let mut bytes = Vec::new();
        for _ in 0..round % 96 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Small numbers are the likely lengths.
            bytes.push((state >> 59) as u8);
        }
        let _ = Reader::new(word(&bytes, 8).unwrap_or(0)).read(&bytes);
        let _ = outcome(round % 2 == 0, 0x200, &bytes);
        assert!(Attributes(&bytes).count() <= bytes.len());
    }
}

#[test]
fn the_kernel_answers() {
    let socket = Socket::open().unwrap();
    let links = socket.ask(&Request::new(18, &[0; 16]).dump()).unwrap();
    let names: Vec<String> = links
        .iter()
        .flat_map(|link| Attributes(&link[16..]))
        .filter(|(kind, _)| *kind == 3)
        .map(|(_, value)| text(value))
        .collect();
    assert!(names.contains(&"lo".into()), "{names:?}");
    let missing = Request::new(18, &[0; 16]).name(3, "nothing-there");
    assert_eq!(socket.ask(&missing).unwrap_err().errno, Errno::ENODEV);
}
