//! JSON Lines: a path to the key, and a path to the value or the whole line.
//!
//! Without paths it reads what `export` writes: `key` and `value`, or `key_base64` and
//! `value_base64` where the bytes are not UTF-8. Empty lines are skipped.

use super::source::{Lines, Record, Source, Trouble};
use crate::text::unbase64;
use serde_json::Value;
use std::io::Read;

pub struct JsonLines<R> {
    pub lines: Lines<R>,
    /// `None` for the fields that `export` writes.
    pub key: Option<String>,
    /// `None` for the whole line if there is a key path, else for the fields that `export` writes.
    pub value: Option<String>,
}

impl<R: Read + Send> Source for JsonLines<R> {
    fn next(&mut self) -> Result<Option<Record>, Trouble> {
        loop {
            let Some((number, line)) = self.lines.next()? else { return Ok(None) };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let record = parse(line, self.key.as_deref(), self.value.as_deref());
            return record.map(Some).map_err(|what| Trouble::line(number, what));
        }
    }

    fn place(&self) -> String {
        format!("line {}", self.lines.number())
    }
}

fn parse(line: &[u8], key: Option<&str>, value: Option<&str>) -> Result<Record, String> {
    let json: Value = serde_json::from_slice(line).map_err(|error| {
        // serde_json counts lines within this one line; only the column helps.
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        format!("not JSON: {what} at column {}", error.column())
    })?;
    let Some(key) = key else {
        if let Some(value) = value {
            return Ok(Record { key: exported(&json, "key")?, value: value_at(&json, value)? });
        }
        return Ok(Record { key: exported(&json, "key")?, value: exported(&json, "value")? });
    };
    let key = match at_path(&json, key)? {
        Value::String(text) => text.clone().into_bytes(),
        Value::Number(number) => number.to_string().into_bytes(),
        Value::Bool(flag) => flag.to_string().into_bytes(),
        other => return Err(format!("`{key}` is {}, which cannot be a key", kind(other))),
    };
    let value = match value {
        Some(path) => value_at(&json, path)?,
        None => line.to_vec(),
    };
    Ok(Record { key, value })
}

fn value_at(json: &Value, path: &str) -> Result<Vec<u8>, String> {
    Ok(match at_path(json, path)? {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    })
}

/// Follows `user.tags.0`: names into objects, numbers into arrays.
fn at_path<'a>(json: &'a Value, path: &str) -> Result<&'a Value, String> {
    // A field whose name has dots wins over the walk.
    if let Some(found) = json.get(path) {
        return Ok(found);
    }
    let mut at = json;
    for part in path.split('.') {
        let next = match at {
            Value::Object(object) => object.get(part),
            Value::Array(array) => part.parse::<usize>().ok().and_then(|index| array.get(index)),
            _ => None,
        };
        at = next.ok_or_else(|| format!("there is no `{path}`"))?;
    }
    Ok(at)
}

/// A field as `export` writes it.
fn exported(json: &Value, name: &str) -> Result<Vec<u8>, String> {
    if let Some(Value::String(text)) = json.get(name) {
        return Ok(text.clone().into_bytes());
    }
    let encoded = format!("{name}_base64");
    if let Some(Value::String(text)) = json.get(&encoded) {
        return unbase64(text.as_bytes()).map_err(|what| format!("`{encoded}`: {what}"));
    }
    Err(format!("there is no text `{name}`; name the fields with --key and --value"))
}

fn kind(json: &Value) -> &'static str {
    match json {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(line: &str, key: Option<&str>, value: Option<&str>) -> (String, String) {
        let record = parse(line.as_bytes(), key, value).unwrap();
        (String::from_utf8(record.key).unwrap(), String::from_utf8(record.value).unwrap())
    }

    #[test]
    fn paths_find_fields() {
        let line = r#"{"user":{"id":7,"tags":["a","b"]},"a.b":"dotted","x":1.50}"#;
        assert_eq!(ok(line, Some("user.id"), Some("user.tags.1")), ("7".into(), "b".into()));
        assert_eq!(ok(line, Some("a.b"), Some("user.tags")).1, r#"["a","b"]"#);
        assert_eq!(ok(line, Some("user.id"), None).1, line);
        assert_eq!(ok(line, Some("x"), None).0, "1.50", "numbers keep their digits");
    }

    #[test]
    fn exported_lines_need_no_flags() {
        assert_eq!(ok(r#"{"key":"k","value":"v"}"#, None, None), ("k".into(), "v".into()));
        let record = parse(br#"{"key_base64":"/w==","value":""}"#, None, None).unwrap();
        assert_eq!(record, Record { key: vec![0xFF], value: vec![] });
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |line: &str, key: Option<&str>| parse(line.as_bytes(), key, None).unwrap_err();
        assert!(
            wrong("{nope", Some("a")).starts_with("not JSON: key must be a string at column 2")
        );
        assert_eq!(wrong(r#"{"b":1}"#, Some("a.c")), "there is no `a.c`");
        assert_eq!(wrong(r#"{"a":null}"#, Some("a")), "`a` is null, which cannot be a key");
        assert!(wrong(r#"{"id":1}"#, None).contains("--key"));
        assert!(wrong(r#"{"key_base64":"*","value":""}"#, None).starts_with("`key_base64`"));
    }
}
