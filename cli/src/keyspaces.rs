//! `keyspaces`: what each holds. Also drops some.

use crate::args::KeyspacesArgs;
use crate::outcome::{Exit, Failure, Result};
use crate::text::escape;
use crate::{output, store, units};
use serde_json::json;
use sluicedb::{RangeInfo, ReadOnlyDb};

/// One keyspace.
struct Row {
    name: String,
    ranges: u64,
    table_bytes: u64,
    entries: u64,
}

pub async fn run(args: KeyspacesArgs) -> Result {
    let (path, keyspace) = (args.path.clone(), "default".to_owned());
    let store = store::Store { path, memory: None, options: args.options.clone(), keyspace };
    if !args.drop.is_empty() {
        drop_all(&store, &args.drop).await?;
    }
    let rows = rows(&store.read_only().await?);
    if args.json {
        let row = |Row { name, ranges, table_bytes, entries }: &Row| {
            json!({
                "keyspace": name, "ranges": ranges, "table_bytes": table_bytes, "entries": entries,
            })
        };
        return output::json(&rows.iter().map(row).collect::<Vec<_>>().into());
    }
    output::line(&table(&rows))
}

/// Drops all of them, or none if one of them does not exist.
async fn drop_all(store: &store::Store, names: &[String]) -> Result {
    let db = store.existing().await?;
    let there = db.keyspaces();
    if let Some(unknown) = names.iter().find(|name| !there.contains(name)) {
        let what = format!("no keyspace is called {}", escape(unknown.as_bytes()));
        return store::close(db, Err(Failure::new(Exit::NotFound, what))).await;
    }
    if names.iter().any(|name| name == "default") {
        let what = "the default keyspace cannot be dropped; `sluice excise` cuts keys out of it";
        return store::close(db, Err(Failure::usage(what))).await;
    }
    let dropped = async {
        for name in names {
            db.drop_keyspace(name).await?;
        }
        Ok(())
    };
    let dropped = dropped.await;
    store::close(db, dropped).await
}

fn rows(db: &ReadOnlyDb) -> Vec<Row> {
    let row = |name: String| {
        let ranges = db.keyspace(&name).map(|keyspace| keyspace.ranges()).unwrap_or_default();
        let sum = |of: fn(&RangeInfo) -> u64| ranges.iter().map(of).sum();
        Row {
            name,
            ranges: ranges.len() as u64,
            table_bytes: sum(|range| range.table_bytes),
            entries: sum(|range| range.entries),
        }
    };
    db.keyspaces().into_iter().map(row).collect()
}

fn table(rows: &[Row]) -> String {
    let mut lines =
        vec![format!("{:>7} {:>10} {:>14}  {}", "ranges", "size", "entries", "keyspace")];
    for Row { name, ranges, table_bytes, entries } in rows {
        let (ranges, entries) = (units::count(*ranges), units::count(*entries));
        let (size, name) = (units::bytes(*table_bytes), escape(name.as_bytes()));
        lines.push(format!("{ranges:>7} {size:>10} {entries:>14}  {name}"));
    }
    lines.join("\n")
}
