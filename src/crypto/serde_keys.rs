//! `Serialize` and `Deserialize` of keys: the id in text formats, 32 bytes in binary formats.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde_core::de::{Error as _, SeqAccess, Visitor};
use serde_core::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crypto::keys::{DiscoveryKey, Key};

macro_rules! as_id_or_bytes {
    ($type:ty) => {
        #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match serializer.is_human_readable() {
                    true => serializer.collect_str(self),
                    false => serializer.serialize_bytes(self.as_bytes()),
                }
            }
        }

        #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let visitor = KeyVisitor(PhantomData);
                match deserializer.is_human_readable() {
                    true => deserializer.deserialize_str(visitor),
                    false => deserializer.deserialize_bytes(visitor),
                }
            }
        }
    };
}

as_id_or_bytes!(Key);
as_id_or_bytes!(DiscoveryKey);

struct KeyVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr<Err = crate::Error> + From<[u8; 32]>> Visitor<'de> for KeyVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key: 64 hexadecimal digits, the 52 characters of a z-base-32 id, or 32 bytes")
    }

    fn visit_str<E: serde_core::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: serde_core::de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        <[u8; 32]>::try_from(bytes).map(T::from).map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    // Some binary formats give bytes as a sequence.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = items.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self))?;
        }
        match items.next_element::<u8>()? {
            None => Ok(T::from(bytes)),
            Some(_) => Err(A::Error::invalid_length(33, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_in_json_is_its_id_and_is_read_in_either_form() {
        let key = Key::new([7; 32]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{}\"", key.id()));
        for text in [json, format!("\"{}\"", key.to_hex())] {
            assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key, "{text}");
        }
        let discovery_key = key.discovery_key();
        let json = serde_json::to_string(&discovery_key).unwrap();
        assert_eq!(serde_json::from_str::<DiscoveryKey>(&json).unwrap(), discovery_key);
        for text in ["\"\"", "\"07\"", "7", "[7, 7]", "null"] {
            assert!(serde_json::from_str::<Key>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn key_of_bytes_needs_exactly_32() {
        use serde_core::de::value::{BytesDeserializer, Error, SeqDeserializer};
        let visit = |bytes: &[u8]| {
            let deserializer: BytesDeserializer<'_, Error> = BytesDeserializer::new(bytes);
            deserializer.deserialize_bytes(KeyVisitor::<Key>(PhantomData))
        };
        assert_eq!(visit(&[7; 32]).unwrap(), Key::new([7; 32]));
        assert!(visit(&[7; 31]).is_err() && visit(&[7; 33]).is_err());
        let sequence = |length: usize| {
            let deserializer: SeqDeserializer<_, Error> = SeqDeserializer::new(vec![7u8; length].into_iter());
            deserializer.deserialize_seq(KeyVisitor::<Key>(PhantomData))
        };
        assert_eq!(sequence(32).unwrap(), Key::new([7; 32]));
        assert!(sequence(31).is_err() && sequence(33).is_err());
    }
}
