//! Encodings: cores and streams of values in place of bytes.

use hypercore::{Binary, Encoding, Error, ErrorKind, GetOptions, Hypercore, ReadOptions, Result, Utf8};

use crate::common::kind;

#[test]
fn encoded_core_appends_and_gets_values() {
    struct Number;
    impl Encoding for Number {
        type Input = u32;
        type Output = u32;
        fn encode(&self, value: &u32) -> Result<Vec<u8>> {
            match value {
                13 => Err(Error::new(ErrorKind::Encoding, "not that one")),
                _ => Ok(value.to_be_bytes().to_vec()),
            }
        }
        fn decode(&self, block: Vec<u8>) -> Result<u32> {
            let bytes = block.try_into().map_err(|_| Error::new(ErrorKind::Decoding, "four bytes make a number"))?;
            Ok(u32::from_be_bytes(bytes))
        }
    }
    let core = Hypercore::in_memory().unwrap();
    let numbers = core.encoded(Number);
    numbers.append(&7).unwrap();
    numbers.append_batch([&8, &9]).unwrap();
    assert_eq!(kind(numbers.append_batch([&1, &13])), ErrorKind::Encoding);
    assert_eq!(numbers.core().len(), 3);
    assert_eq!(numbers.get(2).unwrap(), 9);
    let all: Vec<u32> = numbers.read_stream(ReadOptions::new()).unwrap().map(|n| n.unwrap()).collect();
    assert_eq!(all, [7, 8, 9]);
    assert_eq!(numbers.get_with(99, GetOptions::new().wait(false)).unwrap(), None);
    core.append("five!").unwrap();
    assert_eq!(kind(numbers.get(3)), ErrorKind::Decoding);

    let text = core.encoded(Utf8);
    text.append("grüezi").unwrap();
    assert_eq!(text.get(4).unwrap(), "grüezi");
    core.append([0xff]).unwrap();
    assert_eq!(kind(text.get(5)), ErrorKind::Decoding);
    let plain = core.encoded(Binary);
    plain.append(&b"raw"[..]).unwrap();
    assert_eq!(plain.clone().get(6).unwrap(), b"raw");

    let joined = core.encoded(Utf8).encode_batch(|words| Ok(vec![words.concat().into_bytes()]));
    let appended = joined.append_batch(["one", "block"]).unwrap();
    assert_eq!((appended.length, joined.get(7).unwrap()), (8, "oneblock".to_owned()));
    joined.clone().append_batch(["as", "above"]).unwrap();
    assert_eq!(joined.get(8).unwrap(), "asabove");

    let mut stream = numbers.write_stream();
    stream.write(&1).unwrap();
    assert_eq!(kind(stream.write(&13)), ErrorKind::Encoding);
    stream.write(&2).unwrap();
    assert_eq!(stream.flush().unwrap().unwrap().length, 11);
    stream.write(&3).unwrap();
    drop(stream);
    assert_eq!([9, 10, 11].map(|index| numbers.get(index).unwrap()), [1, 2, 3]);
}

#[cfg(feature = "json")]
#[test]
fn json_encoding_appends_and_gets_values() {
    let core = Hypercore::in_memory().unwrap();
    let json = core.encoded(hypercore::Json::<serde_json::Value>::new());
    let value = serde_json::json!({ "a": [1, null, "ü"] });
    json.append(&value).unwrap();
    assert_eq!(json.get(0).unwrap(), value);
    core.append("{").unwrap();
    assert_eq!(kind(json.get(1)), ErrorKind::Decoding);
}

#[cfg(feature = "json")]
#[test]
fn core_is_read_with_several_encodings() {
    use hypercore::{Json, SessionOptions, Utf8};
    use serde_json::{Value, json};
    let core = Hypercore::in_memory().unwrap();
    let objects = core.session(SessionOptions::new()).unwrap().encoded(Json::<Value>::new());
    objects.append(&json!({ "hello": "world" })).unwrap();
    core.append(r#"{"a":1}"#).unwrap();
    assert_eq!(core.encoded(Utf8).get(0).unwrap(), r#"{"hello":"world"}"#);
    assert_eq!(objects.get(1).unwrap(), json!({ "a": 1 }));
    let joined = core.encoded(Utf8).encode_batch(|words| Ok(vec![words.join("-").into_bytes()]));
    joined.append_batch(["a", "b", "c"]).unwrap();
    joined.append_batch(["d", "e"]).unwrap();
    joined.append("f").unwrap();
    assert_eq!([2, 3, 4].map(|i| joined.get(i).unwrap()), ["a-b-c", "d-e", "f"]);
}
