//! Strict JSON objects: duplicate members, a byte-order mark and bottomless nesting are refused.
//!
//! RFC 8259 leaves duplicate members open and most parsers let the last one win; two readers of one token must not
//! disagree about it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::name::Malformed;

/// Parses one JSON object of at most `depth` levels, with every member name unique at every level.
pub fn object(bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Malformed> {
    match value(bytes, depth)? {
        Value::Object(map) => Ok(map),
        _ => Err(Malformed("JSON object")),
    }
}

/// Parses one JSON value of at most `depth` levels, with every member name unique at every level.
pub fn value(bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth }.deserialize(&mut reader).map_err(|_| Malformed("JSON object"))?;
    reader.end().map_err(|_| Malformed("JSON object"))?;
    Ok(value)
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strict JSON")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict { depth })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("too deep"))?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Strict { depth })?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for refused in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"[{"a":1,"a":1}]"#,
            r#"{"a":1} x"#,
            "\u{feff}{}",
            "[]",
            "\"x\"",
            "",
            r#"{"a":[[[[]]]]}"#,
        ] {
            assert_eq!(object(refused.as_bytes(), 4), Err(Malformed("JSON object")), "{refused}");
        }
        assert_eq!(object(b"{\"a\":\xff}", 4), Err(Malformed("JSON object")));
        assert!(object(br#"{"a":[[[]]],"b":null,"c":1.5,"d":"x","e":true,"f":-1}"#, 4).is_ok());
    }

    #[test]
    fn a_number_is_the_nearest_that_there_is() {
        for text in [
            "6000099999999999999999999999999990000",
            "6.0001e36",
            "1e-7",
            "2.2250738585072014e-308",
            "9007199254740993.0",
        ] {
            let read = value(text.as_bytes(), 1).unwrap();
            assert_eq!(read.as_f64(), text.parse().ok(), "{text}");
            assert_eq!(value(read.to_string().as_bytes(), 1), Ok(read), "{text}");
        }
    }

    #[test]
    fn all_else_is_read_as_it_stands() {
        for text in [
            r#"{"a":[[[]]],"b":null,"c":1.5,"d":"x\n","e":true,"f":-1,"g":18446744073709551615,"h":{"i":[false,0]}}"#,
            "true",
            "-9223372036854775808",
            "1e3",
            "-0.5",
            "[]",
            "\"\\u00e4\"",
        ] {
            assert_eq!(value(text.as_bytes(), 4), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
    }
}
