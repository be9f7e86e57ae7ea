//! Where text goes: data to stdout, messages to stderr, tables for people, JSON for machines.

use crate::outcome::{Failure, Result};
use crate::text;
use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use serde_json::{Map, Value};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Writes a message to the person at the terminal. It is no error if nobody listens.
pub fn message(text: &str) {
    // A closed stderr leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Buffered stdout. Flush it with [`finish`], which reports what a drop would swallow.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Flushes `out`.
pub fn finish(mut out: impl Write) -> Result {
    out.flush().map_err(|error| Failure::stdout(&error))
}

/// Prints one line of data.
pub fn line(text: &str) -> Result {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))
}

/// Prints a JSON document for people and machines alike.
pub fn json(value: &Value) -> Result {
    line(&format!("{value:#}"))
}

/// A table whose columns after the first are numbers and aligned to the right.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_style(TableComponent::HeaderLines, '-')
        .set_style(TableComponent::MiddleHeaderIntersections, ' ')
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        // comfy-table asks the terminal for its width; without one nothing should be wrapped.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Adds `name` to a JSON object: as text where the bytes are UTF-8, else as `<name>_base64`.
pub fn json_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(format!("{name}_base64"), Value::from(text::base64(bytes))),
    };
}

/// One entry as a JSON object. `import` reads it back byte for byte.
pub fn json_entry(key: &[u8], value: Option<&[u8]>) -> Value {
    let mut object = Map::new();
    json_bytes(&mut object, "key", key);
    if let Some(value) = value {
        json_bytes(&mut object, "value", value);
    }
    Value::Object(object)
}

/// Bold green or red for verdicts, where colour is wanted.
pub fn verdict(good: bool, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || !io::stdout().is_terminal();
    if plain {
        return text.to_owned();
    }
    format!("\x1b[1;{}m{text}\x1b[0m", if good { 32 } else { 31 })
}
