//! `ingest`, `excise`, `replace`: whole spans of keys, each call in one change.

use crate::args::{ExciseArgs, IngestArgs, KeySpan, ReplaceArgs};
use crate::outcome::{Failure, Result};
use crate::point::argument;
use crate::progress::Progress;
use crate::scan::Bounds;
use crate::{output, store, units};
use serde_json::json;
use sluicedb::{Db, OnEmpty, ReadOnlyDb, Replacement};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const LOOK_PERIOD: Duration = Duration::from_millis(100);

pub async fn ingest(args: IngestArgs) -> Result {
    // A command that cannot work must not leave a new database behind.
    for table in &args.tables {
        std::fs::metadata(table).map_err(|error| Failure::io(table.display(), &error))?;
    }
    let db = args.store.create().await?;
    let started = Instant::now();
    let ingested = watched(&db, db.ingest(&args.tables)).await;
    let seconds = started.elapsed();
    let entries = store::close(db, ingested).await?;
    let tables = args.tables.len() as u64;
    if args.json {
        return output::json(&json!({
            "tables": tables, "entries": entries, "seconds": seconds.as_secs_f64(),
        }));
    }
    output::line(&format!(
        "ingested {} of {} in {}",
        things(entries, "entry", "entries"),
        things(tables, "table", "tables"),
        units::seconds(seconds)
    ))
}

impl ExciseArgs {
    /// Do the flags name both ends? An unset variable of a script is an empty text, and must not
    /// mean all keys.
    fn names_both_ends(&self) -> bool {
        let is_named = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let KeySpan { prefix, from, to, .. } = &self.keys;
        let begins = self.from_first || is_named(from);
        let ends = self.to_last || is_named(to);
        is_named(prefix) || (begins && ends)
    }
}

pub async fn excise(args: ExciseArgs) -> Result {
    if !args.names_both_ends() {
        let what =
            "say which keys go: --prefix, or --from (or --from-first) and --to (or --to-last)";
        return Err(Failure::usage(what));
    }
    let keys = args.keys.bounds()?;
    let db = args.store.existing().await?;
    let started = Instant::now();
    let excised = db.excise(keys).await.map_err(Failure::from);
    let seconds = started.elapsed();
    store::close(db, excised).await?;
    if args.json {
        return output::json(&json!({ "seconds": seconds.as_secs_f64() }));
    }
    output::line(&format!("the keys are gone; that took {}", units::seconds(seconds)))
}

pub async fn replace(args: ReplaceArgs) -> Result {
    let spans = args.spans()?;
    let source = store::Store {
        path: args.from_db.clone(),
        memory: args.store.memory,
        options: args.store.options.clone(),
        keyspace: args.from_keyspace.clone(),
    };
    store::must_exist(&args.store.path)?;
    let source: ReadOnlyDb = source.read_only().await?;
    let db = args.store.existing().await?;
    let on_empty = if args.refuse_empty { OnEmpty::Refuse } else { OnEmpty::Wipe };
    let (count, started) = (spans.len() as u64, Instant::now());
    let snapshot = source.snapshot();
    let replaced = watched(&db, db.replace_from(&snapshot, spans, on_empty)).await;
    let seconds = started.elapsed();
    let entries = match store::close(db, replaced).await? {
        Replacement::Replaced { entries } => entries,
        Replacement::Emptied => 0,
    };
    if args.json {
        return output::json(&json!({
            "spans": count, "entries": entries, "seconds": seconds.as_secs_f64(),
        }));
    }
    output::line(&format!(
        "{} replaced in {}: {} now",
        things(count, "span", "spans"),
        units::seconds(seconds),
        things(entries, "entry", "entries")
    ))
}

/// Runs the work, and shows how many entries have been brought in.
async fn watched<T>(db: &Db, work: impl Future<Output = sluicedb::Result<T>>) -> Result<T> {
    let done = Arc::new(AtomicU64::new(0));
    let bar = Progress::items(None, &done);
    let looks = async {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            done.store(db.stats().bulk_entries, Relaxed);
        }
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = looks => unreachable!("it looks for ever"),
    };
    drop(bar);
    Ok(ended?)
}

fn things(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", units::count(count), if count == 1 { one } else { many })
}

impl ReplaceArgs {
    /// The spans that the flags describe: the first beginning goes with the first end, and so on.
    /// An empty text is refused, as by `excise`.
    fn spans(&self) -> Result<Vec<Bounds>> {
        let Self { prefix, from, to, from_first, to_last, .. } = self;
        let begins = from.len() + usize::from(*from_first);
        let ends = to.len() + usize::from(*to_last);
        let is_unset = [prefix, from, to].into_iter().flatten().any(String::is_empty);
        if is_unset || prefix.len() + begins + ends == 0 {
            return Err(Failure::usage(
                "say which keys: --prefix, or --from (or --from-first) and --to (or --to-last)",
            ));
        }
        if begins != ends {
            return Err(Failure::usage("give a --to for each --from, or use --prefix"));
        }
        let key = |text: &String| argument(self.keys_as, text);
        let mut spans = Vec::new();
        for text in prefix {
            spans.push(sluicedb::prefix(key(text)?));
        }
        let first = from_first.then_some(Ok(Bound::Unbounded));
        let last = to_last.then_some(Ok(Bound::Unbounded));
        let begins =
            first.into_iter().chain(from.iter().map(|text| key(text).map(Bound::Included)));
        let ends = to.iter().map(|text| key(text).map(Bound::Excluded)).chain(last);
        for (from, to) in begins.zip(ends) {
            let span = (from?, to?);
            if let (Bound::Included(from), Bound::Excluded(to)) = &span
                && from > to
            {
                return Err(Failure::usage("a --from is after its --to"));
            }
            spans.push(span);
        }
        Ok(spans)
    }
}
