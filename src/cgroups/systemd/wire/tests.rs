use super::*;

const CALL: Call = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "StopUnit",
    signature: "ss",
};

/// A signal as systemd sends it, in either order of bytes.
fn signal(big_endian: bool) -> Vec<u8> {
    let number = |value: u32| match big_endian {
        true => value.to_be_bytes(),
        false => value.to_le_bytes(),
    };
    let pad = |bytes: &mut Vec<u8>, to: usize| bytes.resize(bytes.len().next_multiple_of(to), 0);
    let text = |bytes: &mut Vec<u8>, text: &str| {
        pad(bytes, 4);
        bytes.extend(number(text.len() as u32));
        bytes.extend(text.as_bytes());
        bytes.push(0);
    };
    let mut body = number(7).to_vec();
    for word in ["/job/7", "a.scope", "done"] {
        text(&mut body, word);
    }
    let mut fields = Vec::new();
    for (field, kind, value) in [
        (1, b'o', "/org/freedesktop/systemd1"),
        (2, b's', "org.freedesktop.systemd1.Manager"),
        (3, b's', "JobRemoved"),
        (7, b's', ":1.4"),
    ] {
        pad(&mut fields, 8);
        fields.extend([field, 1, kind, 0]);
        text(&mut fields, value);
    }
    pad(&mut fields, 8);
    fields.extend([8, 1, b'g', 0, 4]);
    fields.extend(b"uoss\0");
    let mut bytes = vec![if big_endian { b'B' } else { b'l' }, 4, 1, 1];
    bytes.extend(number(body.len() as u32));
    bytes.extend(number(99));
    bytes.extend(number(fields.len() as u32));
    bytes.extend(fields);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

#[test]
fn signals_are_understood_in_both_byte_orders() {
    for big_endian in [false, true] {
        let bytes = signal(big_endian);
        assert_eq!(
            length(bytes[..FIXED].try_into().unwrap()),
            Some(bytes.len())
        );
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Signal);
        assert_eq!(message.member, "JobRemoved");
        assert_eq!(message.sender, ":1.4");
        assert_eq!(message.signature, "uoss");
        let mut body = message.body();
        assert_eq!(body.u32(), Some(7));
        assert_eq!(body.text(), Some("/job/7"));
        assert_eq!(body.text(), Some("a.scope"));
        assert_eq!(body.text(), Some("done"));
        assert_eq!(body.text(), None);
    }
}

#[test]
fn calls_are_laid_out_as_the_specification_says() {
    let bytes = CALL.encode(3, |writer| {
        writer.text("a.scope");
        writer.text("replace");
    });
    assert_eq!(
        length(bytes[..FIXED].try_into().unwrap()),
        Some(bytes.len())
    );
    assert_eq!(&bytes[..4], b"l\x01\x00\x01");
    assert_eq!(&bytes[4..12], b"\x18\0\0\0\x03\0\0\0");
    assert_eq!(&bytes[16..20], b"\x01\x01o\0");
    assert_eq!(
        &bytes[bytes.len() - 24..],
        b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0"
    );
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.kind, Kind::Other);
    assert_eq!(message.member, "StopUnit");
    assert_eq!(message.interface, CALL.interface);
}

#[test]
fn values_are_laid_out_as_the_specification_says() {
    let variant = |value: Value| {
        let mut writer = Writer::default();
        writer.variant(&value);
        writer.bytes
    };
    assert_eq!(variant(Value::Bool(true)), b"\x01b\0\0\x01\0\0\0");
    assert_eq!(variant(Value::Int(-1)), b"\x01i\0\0\xff\xff\xff\xff");
    assert_eq!(
        variant(Value::Number(u64::MAX)),
        b"\x01t\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
    );
    assert_eq!(
        variant(Value::Text("ab".into())),
        b"\x01s\0\0\x02\0\0\0ab\0"
    );
    assert_eq!(
        variant(Value::Bytes(vec![1, 2])),
        b"\x02ay\0\x02\0\0\0\x01\x02"
    );
    assert_eq!(
        variant(Value::Texts(vec!["a".into(), "b".into()])),
        b"\x02as\0\x0e\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0"
    );
    assert_eq!(
        variant(Value::Pids(vec![1])),
        b"\x02au\0\x04\0\0\0\x01\0\0\0"
    );
    // The padding before the first element is not counted.
    assert_eq!(
        variant(Value::PerDevice(vec![("d".into(), 5)])),
        b"\x05a(st)\0\0\x10\0\0\0\0\0\0\0\x01\0\0\0d\0\0\0\x05\0\0\0\0\0\0\0"
    );
    assert_eq!(
        variant(Value::PerDevice(vec![])),
        b"\x05a(st)\0\0\0\0\0\0\0\0\0\0"
    );
}

#[test]
fn errors_have_names_and_words() {
    let mut bytes = CALL.encode(3, |writer| writer.text("Unit a.scope not loaded."));
    bytes[1] = ERROR;
    let message = Message::decode(&bytes).unwrap();
    assert_eq!(message.kind, Kind::Error);
    assert_eq!(message.words(), "Unit a.scope not loaded.");
}

#[test]
fn truncated_messages_are_refused() {
    for big_endian in [false, true] {
        let bytes = signal(big_endian);
        for end in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..end]), None, "{end}");
        }
    }
}

/// Whatever a byte is changed to, the message is refused or read, and reading it ends.
#[test]
fn hostile_bytes_are_survived() {
    for big_endian in [false, true] {
        let bytes = signal(big_endian);
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, bytes[at] ^ 1] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Some(message) = Message::decode(&bytes) {
                    let mut body = message.body();
                    let _ = (body.u32(), body.text(), body.text(), body.text_variant());
                    let _ = message.words();
                }
            }
        }
    }
    let mut state = 1u32;
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut bytes = vec![b'l', 4, 0, 1, 8, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0];
        bytes.extend(&noise[..48]);
        if let Some(message) = Message::decode(&bytes) {
            let _ = message.body().text();
        }
        assert!(Message::decode(&noise).is_none_or(|message| message.body.len() < 64));
    }
}

#[test]
fn lengths_that_no_message_has_are_refused() {
    let fixed = |body: u32, fields: u32| {
        let mut fixed = [0; FIXED];
        fixed[..4].copy_from_slice(b"l\x04\0\x01");
        fixed[4..8].copy_from_slice(&body.to_le_bytes());
        fixed[12..].copy_from_slice(&fields.to_le_bytes());
        length(&fixed)
    };
    assert_eq!(fixed(0, 0), Some(16));
    assert_eq!(fixed(5, 1), Some(29));
    assert_eq!(fixed(u32::MAX, 0), None);
    assert_eq!(fixed(0, u32::MAX), None);
    assert_eq!(fixed(u32::MAX, u32::MAX), None);
    assert_eq!(length(b"l\x04\0\x02\0\0\0\0\0\0\0\0\0\0\0\0"), None);
    assert_eq!(length(b"x\x04\0\x01\0\0\0\0\0\0\0\0\0\0\0\0"), None);
}
