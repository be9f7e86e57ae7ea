//! `get`, `put`, `del`: one key at a time.

use crate::args::{DelArgs, GetArgs, PutArgs};
use crate::outcome::{Exit, Failure, Result};
use crate::output;
use crate::store::{self, Durable};
use crate::text::{Encoding, escape};
use sluicedb::{Db, WriteBatch};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

/// Bytes from a command-line argument.
pub fn argument(encoding: Encoding, text: &str) -> Result<Vec<u8>> {
    encoding.decode(text.as_bytes()).map_err(|what| Failure::usage(format!("`{text}`: {what}")))
}

pub async fn get(args: GetArgs) -> Result {
    let key = argument(args.keys_as, &args.key)?;
    let db = args.store.read_only().await?;
    let Some(value) = db.get(&key).await? else {
        return Err(Failure::new(Exit::NotFound, format!("no such key: {}", escape(&key))));
    };
    if args.json {
        return output::json(&output::json_entry(&key, Some(&value)));
    }
    let mut out = output::stdout();
    let text = args.print.encode(&value);
    let line_break = args.print != Encoding::Raw || std::io::stdout().is_terminal();
    out.write_all(&text)
        .and_then(|()| if line_break { out.write_all(b"\n") } else { Ok(()) })
        .map_err(|error| Failure::stdout(&error))?;
    output::finish(out)
}

pub async fn put(args: PutArgs) -> Result {
    let key = argument(args.keys_as, &args.key)?;
    let limit = args.store.options()?.effective_value_bytes_max();
    let value = match (&args.value, &args.file) {
        (Some(value), _) => argument(args.keys_as, value)?,
        (None, Some(path)) if path != Path::new("-") => {
            let file = std::fs::File::open(path).map_err(|e| Failure::io(path.display(), &e))?;
            read_value(file, &path.display().to_string(), limit)?
        }
        _ => read_value(std::io::stdin().lock(), "stdin", limit)?,
    };
    let db = args.store.create().await?;
    let written = db.put_with(&key, &value, args.durability.write_options()).await;
    store::close(db, written.map(drop).map_err(Failure::from)).await
}

/// Reads to the end, but not more than a value may hold.
fn read_value(from: impl Read, name: &str, limit: u64) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(limit + 1).read_to_end(&mut value).map_err(|error| Failure::io(name, &error))?;
    if value.len() as u64 > limit {
        return Err(Failure::usage(format!(
            "{name}: longer than {limit} bytes, the most a value holds"
        )));
    }
    Ok(value)
}

pub async fn del(args: DelArgs) -> Result {
    let keys: Vec<Vec<u8>> =
        args.keys.iter().map(|key| argument(args.keys_as, key)).collect::<Result<_>>()?;
    let db = args.store.existing().await?;
    let removed = remove(&db, &keys, args.must_exist, args.durability).await;
    store::close(db, removed).await
}

async fn remove(db: &Db, keys: &[Vec<u8>], must_exist: bool, durability: Durable) -> Result {
    let mut batch = WriteBatch::new();
    for key in keys {
        if must_exist && !db.contains_key(key).await? {
            return Err(Failure::new(Exit::NotFound, format!("no such key: {}", escape(key))));
        }
        batch.delete(key);
    }
    db.write_with(batch, durability.write_options()).await?;
    Ok(())
}
