use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u32,
    name: String,
    #[serde(default)]
    admin: bool,
}

fn user() -> User {
    User { id: 7, name: "Ann".to_owned(), admin: true }
}

fn encode<V: Serialize + DeserializeOwned>(value: &V) -> Vec<u8> {
    WireCodec::new().encode(value).unwrap()
}

fn decode<V: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<V, BoxError> {
    WireCodec::new().decode(bytes)
}

#[test]
fn fields_are_written_by_name_so_unknown_and_missing_ones_do_no_harm() {
    let bytes = encode(&user());
    assert_eq!(bytes, b"HC1M\x83\xa2id\x07\xa4name\xa3Ann\xa5admin\xc3");
    assert_eq!(decode::<User>(&bytes).unwrap(), user());
    let other = b"HC1M\x83\xa4more\x01\xa4name\xa3Ann\xa2id\x07";
    assert_eq!(decode::<User>(other).unwrap(), User { admin: false, ..user() });
}

#[test]
fn a_null_is_written_as_the_typescript_package_writes_it() {
    let bytes = encode(&None::<User>);
    assert_eq!(bytes, b"HC1M\xb4__hybridcache_null__");
    assert_eq!(decode::<Option<User>>(&bytes).unwrap(), None);
    // The text itself is read as text again.
    let text = String::from_utf8(NULL_TEXT[1..].to_vec()).unwrap();
    assert_eq!(encode(&text), b"HC1J\"__hybridcache_null__\"");
    assert_eq!(decode::<String>(&encode(&text)).unwrap(), text);
}

#[test]
fn json_and_payloads_without_a_prefix_are_read() {
    let json = WireCodec::new().json().encode(&user()).unwrap();
    assert_eq!(json, br#"HC1J{"id":7,"name":"Ann","admin":true}"#);
    assert_eq!(decode::<User>(&json).unwrap(), user());
    assert_eq!(decode::<User>(&json[4..]).unwrap(), user());
    assert_eq!(decode::<User>(&encode(&user())[4..]).unwrap(), user());
}

#[test]
fn a_text_that_is_json_and_messagepack_is_neither() {
    for digit in b'0'..=b'9' {
        decode::<u8>(&[digit]).unwrap_err();
        decode::<serde_json::Value>(&[digit]).unwrap_err();
    }
    assert_eq!(decode::<u8>(b"10").unwrap(), 10);
    assert_eq!(decode::<u8>(b"7\n").unwrap(), 7);
    assert_eq!(decode::<u8>(b" 7").unwrap(), 7);
    assert_eq!(decode::<i8>(b"-7").unwrap(), -7);
    assert_eq!(decode::<u8>(b"\x07").unwrap(), 7);
    assert_eq!(decode::<u8>(b":").unwrap(), 58);
    // All other texts of JSON begin with a byte that is no whole MessagePack value with them.
    let json: [&[u8]; 7] = [b"true", b"null", b"\"7\"", b"[7]", b"{\"a\":7}", b"1e9", b"[]"];
    for json in json {
        validate(json, 128, 99).unwrap_err();
        decode::<serde_json::Value>(json).unwrap();
    }
}

#[test]
fn json_refuses_infinity_and_nan_by_name_and_messagepack_has_them() {
    for float in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let read: f64 = decode(&encode(&float)).unwrap();
        assert!(read == float || read.is_nan() && float.is_nan());
        for value in [vec![Some(1.0), Some(float)], vec![Some(float)]] {
            let error = WireCodec::new().json().encode(&value).unwrap_err().to_string();
            assert!(error.contains("infinity") && error.contains("NaN"), "{error}");
        }
    }
    WireCodec::new().json().encode(&f32::NAN).unwrap_err();
    WireCodec::new().json().encode(&f64::MAX).unwrap();
    decode::<f64>(b"HC1Jnull").unwrap_err();
}

#[test]
fn there_is_one_null() {
    for codec in [WireCodec::new(), WireCodec::new().json()] {
        let read = |value: Option<Option<u8>>| -> Option<Option<u8>> {
            codec.decode(&codec.encode(&value).unwrap()).unwrap()
        };
        assert_eq!(read(Some(Some(7))), Some(Some(7)));
        assert_eq!(read(Some(None)), None);
        assert_eq!(read(None), None);
        let bytes = codec.encode(&Some(())).unwrap();
        assert_eq!(Codec::<Option<()>>::decode(&codec, &bytes).unwrap(), None);
    }
}

#[test]
fn a_list_may_have_any_number_of_wrapped_nulls() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(Option<u8>);

    let list: Vec<Wrapped> = (0..200).map(|_| Wrapped(None)).collect();
    assert_eq!(decode::<Vec<Wrapped>>(&encode(&list)).unwrap(), list);
}

#[test]
fn unknown_tags_are_errors() {
    for tag in [b'X', b'S', b'2', b'm'] {
        let bytes = [b"HC1", &[tag][..], b"\x07"].concat();
        decode::<u32>(&bytes).unwrap_err();
    }
}

#[test]
fn no_bytes_make_decoding_panic_or_overflow_the_stack() {
    let bytes = encode(&user());
    for end in 0..bytes.len() {
        decode::<User>(&bytes[..end]).unwrap_err();
    }
    decode::<User>(&[bytes.as_slice(), b"\0"].concat()).unwrap_err();
    for body in [vec![0x91; 100_000], vec![0x81; 100_000], vec![b'['; 100_000]] {
        for prefix in [&b"HC1M"[..], b"HC1J", b""] {
            let bytes = [prefix, &body].concat();
            decode::<serde_json::Value>(&bytes).unwrap_err();
        }
    }
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200_000 {
        let mut bytes = encode(&user());
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let _ = decode::<serde_json::Value>(&bytes);
        let _ = decode::<User>(&bytes);
    }
}
