//! `scan`: entries in key order, as text lines or JSON lines.

use crate::args::{KeySpan, ScanArgs, Selection};
use crate::outcome::{Failure, Result};
use crate::output;
use crate::point::argument;
use sluicedb::{ReadOnlyDb, Scan};
use std::io::Write;
use std::ops::Bound;

/// The two ends of an interval of keys.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl KeySpan {
    /// The interval that the flags describe.
    pub fn bounds(&self) -> Result<Bounds> {
        let key = |text: &Option<String>| {
            text.as_ref().map(|text| argument(self.keys_as, text)).transpose()
        };
        if let Some(prefix) = key(&self.prefix)? {
            return Ok(sluicedb::prefix(prefix));
        }
        let from = key(&self.from)?.map_or(Bound::Unbounded, Bound::Included);
        let to = key(&self.to)?.filter(|to| !to.is_empty());
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Included(from), Bound::Excluded(to)) = (&from, &to)
            && from > to
        {
            return Err(Failure::usage("--from is after --to"));
        }
        Ok((from, to))
    }
}

impl Selection {
    /// The scan that the flags describe.
    pub fn scan(&self, db: &ReadOnlyDb) -> Result<Scan> {
        let mut scan = db.scan(self.keys.bounds()?);
        if self.reverse {
            scan = scan.rev();
        }
        if let Some(limit) = self.limit {
            scan = scan.limit(limit);
        }
        Ok(scan)
    }
}

pub async fn run(args: ScanArgs) -> Result {
    let db = args.store.read_only().await?;
    let scan = args.selection.scan(&db)?;
    print(scan, &args).await
}

async fn print(mut scan: Scan, args: &ScanArgs) -> Result {
    if args.keys_only {
        scan = scan.keys_only();
    }
    // Not held across an await: the lock of stdout belongs to a thread.
    let mut buffer = Vec::with_capacity(64 << 10);
    while let Some(batch) = scan.next_chunk().await? {
        for (key, value) in batch.iter() {
            let value = (!args.keys_only).then_some(value);
            if args.json {
                buffer.extend_from_slice(output::json_entry(key, value).to_string().as_bytes());
            } else {
                buffer.extend_from_slice(&args.print.encode(key));
                if let Some(value) = value {
                    buffer.push(b'\t');
                    buffer.extend_from_slice(&args.print.encode(value));
                }
            }
            buffer.push(b'\n');
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&buffer).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))?;
        buffer.clear();
    }
    Ok(())
}
