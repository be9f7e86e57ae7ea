//! `stats` and `verify`: what the database says about itself.

use crate::args::{StatsArgs, VerifyArgs};
use crate::outcome::{Exit, Failure, Result};
use crate::progress::Progress;
use crate::{output, store, text, units};
use comfy_table::Table;
use serde_json::{Value, json};
use sluicedb::{ActorStats, Finding, LandingStats, LevelStats, RangeStats, StallStats, Stats};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

pub async fn stats(args: StatsArgs) -> Result {
    let (stats, levels) = if args.read_only {
        let db = args.store.read_only().await?;
        (db.stats(), db.level_info())
    } else {
        let db = args.store.existing().await?;
        let told = (db.stats(), db.level_info());
        db.close().await?;
        told
    };
    if args.json {
        let mut json = to_json(&stats);
        json["levels"] = to_json(&levels);
        json["write_amplification"] = stats.write_amplification().into();
        json["space_amplification"] = stats.space_amplification().into();
        return output::json(&json);
    }
    let (ranges, actors) = (ranges(&stats.ranges), actors(&stats.actors, None));
    output::line(&format!("{}\n\n{ranges}\n\n{actors}", counters(&stats)))
}

pub fn verify(args: &VerifyArgs) -> Result {
    store::must_exist(&args.path)?;
    let started = Instant::now();
    let tables = Arc::new(AtomicU64::new(0));
    let bar = Progress::items(None, &tables);
    let summary = sluicedb::verify(&args.path, |done, _| tables.store(done, Relaxed));
    drop(bar);
    let summary = summary?;
    let elapsed = started.elapsed();
    let bytes = store::bytes_on_disk(&args.path);
    let found = summary.findings.len();
    if args.json {
        let list = |findings: &[Finding]| findings.iter().map(finding_json).collect::<Vec<_>>();
        output::json(&json!({
            "ok": summary.is_sound(), "findings": list(&summary.findings),
            "torn": list(&summary.torn), "strays": summary.strays, "tables": summary.tables,
            "blocks": summary.blocks, "entries": summary.entries,
            "manifest_records": summary.manifest_records, "log_records": summary.log_records,
            "bytes": bytes, "seconds": elapsed.as_secs_f64(),
        }))?;
    } else {
        for finding in &summary.findings {
            output::line(&describe(finding))?;
        }
        for torn in &summary.torn {
            output::message(&format!("the next open will cut: {}", describe(torn)));
        }
        if !summary.strays.is_empty() {
            output::message(&format!("nothing refers to: {}", summary.strays.join(", ")));
        }
        output::line(&format!(
            "{}: {} tables, {} blocks, {} entries, {} manifest edits, {} log records, {} in {}",
            output::verdict(found == 0, if found == 0 { "ok" } else { "DAMAGED" }),
            units::count(summary.tables),
            units::count(summary.blocks),
            units::count(summary.entries),
            units::count(summary.manifest_records),
            units::count(summary.log_records),
            units::bytes(bytes),
            units::seconds(elapsed)
        ))?;
    }
    if found == 0 {
        return Ok(());
    }
    let findings = if found == 1 { "finding" } else { "findings" };
    let message = format!("{found} {findings} in {}", args.path.display());
    Err(Failure::new(Exit::Corrupt, message))
}

fn finding_json(finding: &Finding) -> Value {
    json!({"file": finding.file, "offset": finding.offset, "what": finding.what})
}

/// One finding as `file: what at offset n`.
pub fn describe(finding: &Finding) -> String {
    let file = finding.file.display();
    match finding.offset {
        Some(offset) => format!("{file}: {} at offset {offset}", finding.what),
        None => format!("{file}: {}", finding.what),
    }
}

/// Anything the library can serialize.
pub fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("plain structs of numbers and text are JSON")
}

/// A range, named by its keys.
pub fn range_name(keyspace: &str, range: u32, start: &[u8], end: Option<&[u8]>) -> String {
    let end = end.map(text::escape).unwrap_or_default();
    let keyspace = match keyspace {
        "default" => String::new(),
        name => format!("{}: ", text::escape(name.as_bytes())),
    };
    format!("{keyspace}range {range} [{}..{end})", text::escape(start))
}

/// The actors' mailboxes. `peaks` adds the largest length seen of each, by name.
pub fn actors(actors: &[ActorStats], peaks: Option<&dyn Fn(&str) -> usize>) -> Table {
    let mut header = vec!["actor", "waiting", "room", "handled"];
    if peaks.is_some() {
        header.push("peak seen");
    }
    let mut table = output::table(&header);
    for actor in actors {
        let mut row = vec![
            actor.name.clone(),
            units::count(actor.mailbox_len as u64),
            units::count(actor.mailbox_capacity as u64),
            units::count(actor.handled),
        ];
        row.extend(peaks.map(|peak| units::count(peak(&actor.name) as u64)));
        table.add_row(row);
    }
    table
}

/// Each range's memory, and who waited for it.
fn ranges(ranges: &[RangeStats]) -> Table {
    let mut table = output::table(&[
        "keys",
        "active",
        "dead",
        "taken back",
        "sealed",
        "limit",
        "rotations",
        "flushes",
        "waits",
        "time waited",
        "L0 runs",
        "tables",
    ]);
    for range in ranges {
        table.add_row([
            range_name(
                &range.keyspace,
                range.range,
                &range.range_start,
                range.range_end.as_deref(),
            ),
            units::bytes(range.active_bytes),
            units::bytes(range.buffer.dead_bytes),
            units::bytes(range.buffer.reclaimed_bytes),
            format!(
                "{} ({})",
                units::count(range.sealed_memtables),
                units::bytes(range.sealed_bytes)
            ),
            units::bytes(range.memory_bytes_max),
            units::count(range.rotations),
            units::count(range.flushes),
            units::count(range.waits),
            units::nanos(range.wait_micros.saturating_mul(1000)),
            units::count(range.l0_runs),
            units::bytes(range.level_bytes.iter().sum()),
        ]);
    }
    table
}

/// The counters, grouped as the data flows.
fn counters(stats: &Stats) -> Table {
    let count = units::count;
    let bytes = units::bytes;
    let mut table = output::table(&["what", "value"]);
    let lookups = stats.cache_hits + stats.cache_misses;
    let rows = [
        ("visible seqno", count(stats.visible_seqno)),
        ("durable seqno", count(stats.durable_seqno)),
        ("recovered entries", count(stats.recovered_entries)),
        ("recovered changes of routes", count(stats.recovered_changes)),
        ("recovered torn bytes", bytes(stats.recovered_torn_bytes)),
        ("commits", count(stats.commits)),
        ("  on the caller's thread", count(stats.commits_inline)),
        ("changes of routes", count(stats.changes)),
        (
            "  splits: bytes, entries, heat",
            format!(
                "{}, {}, {}",
                count(stats.splits_bytes),
                count(stats.splits_entries),
                count(stats.splits_heat)
            ),
        ),
        (
            "  merges of cold ranges; failed tries",
            format!("{}; {}", count(stats.merges_cold), count(stats.range_tries_failed)),
        ),
        ("entries written", count(stats.entries_written)),
        ("bytes written", bytes(stats.bytes_written)),
        (
            "waits: range, database",
            format!("{}, {}", count(stats.waits_local), count(stats.waits_global)),
        ),
        (
            "  time waited",
            format!(
                "{}, {}",
                units::nanos(stats.wait_micros_local.saturating_mul(1000)),
                units::nanos(stats.wait_micros_global.saturating_mul(1000))
            ),
        ),
        ("  for what", stalls(&stats.stalls)),
        (
            "  refused as overloaded",
            format!("{}, {}", count(stats.overloaded_local), count(stats.overloaded_global)),
        ),
        (
            "pressure",
            match stats.pressure.cause {
                Some(cause) => format!("{:.2} ({cause})", stats.pressure.level),
                None => format!("{:.2}", stats.pressure.level),
            },
        ),
        ("log: bytes, syncs", format!("{}, {}", bytes(stats.log_bytes), count(stats.log_syncs))),
        ("log: given up unsynced", bytes(stats.log_given_up_bytes)),
        ("log segments", count(stats.log_segments)),
        (
            "manifest: edits, syncs",
            format!("{}, {}", count(stats.edits), count(stats.manifest_syncs)),
        ),
        (
            "memory: active, sealed",
            format!("{}, {}", bytes(stats.active_bytes), bytes(stats.sealed_bytes)),
        ),
        (
            "write buffer",
            format!(
                "{} of {}",
                bytes(stats.write_buffer_used_bytes),
                bytes(stats.write_buffer_bytes)
            ),
        ),
        ("snapshots and scans open", count(stats.read_points)),
        ("spare chunks", bytes(stats.spare_chunk_bytes)),
        ("flushes", format!("{} ({})", count(stats.flushes), bytes(stats.flush_bytes))),
        ("compactions", count(stats.compactions)),
        (
            "  read, written",
            format!(
                "{}, {}",
                bytes(stats.compaction_bytes_read),
                bytes(stats.compaction_bytes_written)
            ),
        ),
        ("  paced", units::nanos(stats.compaction_pace_micros.saturating_mul(1000))),
        ("  only in the manifest", count(stats.trivial_moves)),
        ("  tables landed", count(stats.tables_landed)),
        ("  keeps", merges(&stats.keeps)),
        ("  drains", merges(&stats.drains)),
        ("written per byte of writes", format!("{:.2}", stats.write_amplification())),
        ("  into each level", by_level(stats, |level| level.bytes_written)),
        ("  read from each level", by_level(stats, |level| level.bytes_read)),
        ("  taken over as it was", by_level(stats, |level| level.bytes_taken_over)),
        ("merges that are due", format!("about {}", bytes(stats.compaction_debt_bytes))),
        ("job retries", count(stats.job_retries)),
        ("tables", format!("{} ({})", count(stats.tables), bytes(stats.table_bytes))),
        (
            "  in landings",
            format!("{} ({})", count(stats.landing_tables), bytes(stats.landing_bytes)),
        ),
        ("  runs per read, at most", count(stats.read_runs_max)),
        (
            "  in files, can be read",
            format!("{}, about {}", bytes(stats.table_file_bytes), bytes(stats.live_bytes)),
        ),
        ("  files per byte of that", format!("{:.2}", stats.space_amplification())),
        ("table entries", count(stats.table_entries)),
        (
            "open tables",
            format!("{} of {}", count(stats.open_tables), count(stats.open_tables_max)),
        ),
        (
            "their indexes, filters",
            format!("{}, {}", bytes(stats.index_bytes), bytes(stats.filter_bytes)),
        ),
        ("cache", format!("{} of {}", bytes(stats.cache_bytes), bytes(stats.cache_capacity_bytes))),
        ("cache hits", format!("{} of {}", count(stats.cache_hits), count(lookups))),
        ("keys looked up", count(stats.gets_found + stats.gets_absent)),
        ("  without a value", count(stats.gets_absent)),
        ("scans", count(stats.scans)),
        ("  entries", count(stats.scan_entries)),
        ("cold reads", count(stats.cold_reads)),
    ];
    for (what, value) in rows {
        table.add_row([what.to_owned(), value]);
    }
    table
}

/// A number of L0 and of each level.
fn by_level(stats: &Stats, of: impl Fn(&LevelStats) -> u64) -> String {
    let levels = stats.by_level.iter().map(|level| units::bytes(of(level)));
    levels.collect::<Vec<_>>().join(", ")
}

/// The causes for which any write waited.
fn stalls(stalls: &[StallStats]) -> String {
    let some = stalls.iter().filter(|stall| stall.waits > 0).map(|stall| {
        let time = units::nanos(stall.micros.saturating_mul(1000));
        format!("{}: {} ({time})", stall.cause, units::count(stall.waits))
    });
    some.collect::<Vec<_>>().join(", ")
}

/// Merges of landings: how many, of what, and how long they took.
fn merges(of: &LandingStats) -> String {
    format!(
        "{} ({} tables, {}, {})",
        units::count(of.runs),
        units::count(of.tables),
        units::bytes(of.bytes),
        units::nanos(of.micros.saturating_mul(1000))
    )
}
