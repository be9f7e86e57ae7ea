//! The operations of a history. Each has its arm, with its check beside it.

use super::*;

impl Case<'_> {
    pub(super) fn step(&mut self, operation: &Operation) -> Result<(), String> {
        use Operation as Op;
        let default = self.setup.options.durability;
        match operation {
            Op::Put(key, value) => {
                self.wait(self.db().put(key, value)).map_err(text)?;
                self.applied(vec![Change::Put(key.clone(), value.clone())], default);
            }
            Op::Delete(key) => {
                self.wait(self.db().delete(key)).map_err(text)?;
                self.applied(vec![Change::Delete(key.clone())], default);
            }
            Op::Batch(changes, durability) => {
                let options = WriteOptions::durability(*durability);
                let batch = oracle::batch(changes);
                self.wait(self.db().write_with(batch, options)).map_err(text)?;
                self.applied(changes.clone(), *durability);
            }
            Op::Pipeline(batches) => {
                let mut tickets = Vec::new();
                for changes in batches {
                    let batch = oracle::batch(changes);
                    tickets.push(self.wait(self.db().submit(batch)).map_err(text)?);
                }
                let mut last = 0;
                for (changes, ticket) in batches.iter().zip(tickets) {
                    let seqno = self.wait(ticket).map_err(text)?;
                    let next = last + changes.len() as u64;
                    // A change of the routes takes a sequence number.
                    let Options { ranges_merge, range_bytes_max, .. } = self.setup.options;
                    let Options { range_entries_max, range_heat_max, .. } = self.setup.options;
                    let limits = [range_bytes_max, range_entries_max, range_heat_max];
                    let exact = !ranges_merge && limits == [u64::MAX; 3];
                    if last != 0 && (seqno < next || exact && seqno != next) {
                        return Err(format!("sequence number {seqno} after {last}"));
                    }
                    last = seqno;
                    self.applied(changes.clone(), default);
                }
            }
            Op::Forget(changes) => {
                let batch = oracle::batch(changes);
                let ticket = self.wait(self.db().submit(batch)).map_err(text)?;
                drop(ticket);
                // The next write follows it: when that one is visible, so is this.
                let fence = oracle::batch(&[Change::Delete(b"fence".to_vec())]);
                self.wait(self.db().write(fence)).map_err(text)?;
                self.applied(changes.clone(), Durability::Buffered);
                self.applied(vec![Change::Delete(b"fence".to_vec())], default);
            }
            Op::Get(key) => {
                let found = self.wait(self.db().get(key)).map_err(text)?;
                same_value(key, self.model.get(&tagged(self.at, key)), found.as_deref())?;
                self.answers.push(format!("{:?}", found.as_deref().map(Shown)));
            }
            Op::Contains(key) => {
                let found = self.wait(self.db().contains_key(key)).map_err(text)?;
                if found != self.model.contains_key(&tagged(self.at, key)) {
                    return Err(format!("contains_key says {found}"));
                }
            }
            Op::MultiGet(keys) => {
                let found = self.wait(self.db().multi_get(keys)).map_err(text)?;
                if found.len() != keys.len() {
                    return Err(format!("{} answers", found.len()));
                }
                for (key, value) in keys.iter().zip(&found) {
                    same_value(key, self.model.get(&tagged(self.at, key)), value.as_deref())?;
                }
            }
            Op::Scan(how) => {
                let scan = start(how, |range| self.db().scan(range), |p| self.db().scan_prefix(p));
                let wanted = wanted(&self.mine(), how);
                let found = self.take_all(scan, how.in_batches)?;
                same_entries(&wanted, &found)?;
                self.answers.push(format!("{} entries", found.len()));
            }
            Op::Content => self.compare_content()?,
            Op::SnapshotOpen => {
                if self.snapshots.len() < 4 {
                    let snapshot = self.db().snapshot();
                    let compactions = self.db().stats().compactions;
                    let (model, at) = (self.model.clone(), self.at);
                    let (made, opened) = (self.made, self.opened);
                    self.snapshots.push(Taken { snapshot, model, at, made, opened, compactions });
                }
            }
            Op::SnapshotGet(which, key) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                let taken = &self.snapshots[which];
                let (snapshot, model) = self.look(taken)?;
                let found = self.wait(snapshot.get(key)).map_err(text)?;
                same_value(key, model.get(key), found.as_deref())?;
                if self.db().stats().compactions > taken.compactions {
                    self.tally.add(Event::SnapshotAcrossCompaction, 1);
                }
            }
            Op::SnapshotScan(which, how) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                let (snapshot, model) = self.look(&self.snapshots[which])?;
                let scan = start(how, |range| snapshot.scan(range), |p| snapshot.scan_prefix(p));
                same_entries(&wanted(&model, how), &self.take_all(scan, how.in_batches)?)?;
            }
            Op::SnapshotDrop(which) => {
                if let Some(which) = which.checked_rem(self.snapshots.len()) {
                    self.snapshots.remove(which);
                }
            }
            Op::IteratorOpen(how) => {
                if self.iterators.len() < 4 {
                    let scan =
                        start(how, |range| self.db().scan(range), |p| self.db().scan_prefix(p));
                    let rest = wanted(&self.mine(), how).into_iter();
                    let flushes = self.db().stats().flushes;
                    let iterating = Iterating { scan, rest, in_batches: how.in_batches };
                    self.iterators.push((iterating, flushes));
                }
            }
            Op::IteratorStep(which, entries) => {
                let Some(which) = which.checked_rem(self.iterators.len()) else { return Ok(()) };
                let (mut iterating, flushes) = self.iterators.swap_remove(which);
                self.step_iterator(&mut iterating, *entries)?;
                if self.db().stats().flushes > flushes {
                    self.tally.add(Event::IteratorAcrossFlush, 1);
                }
                self.iterators.push((iterating, flushes));
            }
            Op::IteratorDrop(which) => {
                if let Some(which) = which.checked_rem(self.iterators.len()) {
                    self.iterators.remove(which);
                }
            }
            Op::Split(at) => {
                // Earlier writes are synced with it.
                if self.wait(self.db().split_at(at)).map_err(text)? {
                    self.tally.add(Event::Split, 1);
                    self.synced = self.since_open.len();
                }
            }
            Op::Merge(from) => {
                let at = self.db().ranges().into_iter().find(|range| range.start > *from);
                let Some(at) = at else { return Ok(()) };
                if self.wait(self.db().merge_at(at.start)).map_err(text)? {
                    self.tally.add(Event::Merge, 1);
                }
                self.synced = self.since_open.len();
            }
            Op::DeleteRange(lo, hi) => {
                self.wait(self.db().delete_range(&lo[..]..&hi[..])).map_err(text)?;
                self.tally.add(Event::DeleteRange, 1);
                // An empty span writes nothing, and so promises nothing about earlier writes.
                if self.mine().keys().any(|key| lo <= key && key < hi) {
                    self.replaced(lo, hi, Vec::new(), default);
                }
            }
            Op::Ingest(changes) => {
                let (path, inside) = self.outside(changes, None)?;
                self.wait(self.db().ingest([path])).map_err(text)?;
                self.tally.add(Event::Ingest, 1);
                self.replaced(b"", b"", inside, Durability::Synced);
            }
            Op::Replace(lo, hi, _)
            | Op::ReplaceFrom(_, lo, hi)
            | Op::BatchOfRange(_, lo, hi, _)
                if lo >= hi => {}
            Op::BatchOfRange(before, lo, hi, after) => {
                let mut batch = oracle::batch(before);
                batch.delete_range(&lo[..]..&hi[..]);
                oracle::add(&mut batch, after);
                self.wait(self.db().write(batch)).map_err(text)?;
                self.tally.add(Event::BatchOfRange, 1);
                let stays = |change: &&Change| !(&lo[..]..&hi[..]).contains(&change.key());
                let changes = before.iter().filter(stays).chain(after).cloned().collect();
                self.replaced(lo, hi, changes, Durability::Synced);
            }
            Op::Replace(lo, hi, changes) => {
                let (path, inside) = self.outside(changes, Some((lo, hi)))?;
                let tables = if inside.is_empty() { vec![] } else { vec![path] };
                let plan = IngestPlan::new().replace(&lo[..]..&hi[..], tables);
                self.wait(self.db().ingest_and_excise(plan)).map_err(text)?;
                self.tally.add(Event::Replace, 1);
                self.replaced(lo, hi, inside, Durability::Synced);
            }
            Op::ReplaceFrom(which, lo, hi) => {
                let Some(which) = which.checked_rem(self.snapshots.len()) else { return Ok(()) };
                // What it shows of its own keyspace, whatever happened to that since.
                let Taken { snapshot, model, at, .. } = self.snapshots[which].clone();
                let then = part(&model, at);
                let spans = [&lo[..]..&hi[..]];
                let replaced = self.db().replace_from(&snapshot, spans, OnEmpty::Wipe);
                self.wait(replaced).map_err(text)?;
                self.tally.add(Event::ReplaceFrom, 1);
                self.tally.add(Event::ReplaceFromAnotherKeyspace, u64::from(at != self.at));
                let inside = then.iter().filter(|(key, _)| lo <= *key && *key < hi);
                let inside = inside.map(|(key, value)| Change::Put(key.clone(), value.clone()));
                let inside = inside.collect();
                self.replaced(lo, hi, inside, Durability::Synced);
            }
            Op::Flush => {
                self.wait(self.db().flush()).map_err(text)?;
                self.synced = self.since_open.len();
            }
            Op::Compact => {
                let tombstones =
                    |db: &Db| -> u64 { db.level_info().iter().map(|info| info.tombstones).sum() };
                let before = tombstones(self.db());
                for db in self.handles.iter().flatten() {
                    self.wait(db.compact()).map_err(text)?;
                }
                let after = tombstones(self.db());
                self.tally.add(Event::TombstonesDropped, before.saturating_sub(after));
                self.synced = self.since_open.len();
                if !self.setup.threads && after != 0 {
                    return Err(format!("{after} tombstones survived a full compaction"));
                }
            }
            Op::Sync => {
                self.wait(self.db().sync()).map_err(text)?;
                self.synced = self.since_open.len();
            }
            Op::Keyspace(at) => {
                let before = self.db().stats().changes;
                let handle = self.wait(self.db().keyspace(name(*at))).map_err(text)?;
                if self.handles[*at].is_none() {
                    self.tally.add(Event::KeyspaceMade, self.db().stats().changes - before);
                    self.made[*at] += 1;
                    self.handles[*at] = Some(handle);
                    let there = Change::Put(tagged(*at, b""), Vec::new());
                    self.applied_to_all(vec![there], Durability::Synced);
                }
                self.at = *at;
            }
            Op::DropKeyspace(at) => {
                let dropped = self.wait(self.db().drop_keyspace(name(*at))).map_err(text)?;
                if dropped != self.handles[*at].take().is_some() {
                    return Err(format!("it was dropped: {dropped}"));
                }
                if dropped {
                    self.tally.add(Event::KeyspaceDropped, 1);
                    let gone = self.model.keys().filter(|key| key[0] == *at as u8).cloned();
                    let gone = gone.map(Change::Delete).collect();
                    self.applied_to_all(gone, Durability::Synced);
                }
                if self.at == *at {
                    self.at = 0;
                }
            }
            Op::Across(changes) => {
                let (mut batch, mut tagged) = (WriteBatch::new(), Vec::new());
                let mut touched = std::collections::BTreeSet::new();
                for (at, change) in changes {
                    let Some(of) = &self.handles[*at] else { continue };
                    match change {
                        Change::Put(key, value) => batch.put_in(of, key, value),
                        Change::Delete(key) => batch.delete_in(of, key),
                    };
                    touched.insert(*at);
                    tagged.extend(all_tagged(*at, [change.clone()]));
                }
                self.wait(self.db().write(batch)).map_err(text)?;
                self.tally.add(Event::AcrossKeyspaces, u64::from(touched.len() > 1));
                if !touched.is_empty() {
                    self.applied_to_all(tagged, default);
                }
            }
            Op::Checkpoint => {
                let (to, incremental) = (self.dir.with_extension("copy"), self.has_copy);
                let checkpoint = self.db().checkpoint(&to);
                let checkpoint = if incremental { checkpoint.incremental() } else { checkpoint };
                self.wait(async { checkpoint.await }).map_err(text)?;
                self.has_copy = true;
                self.tally.add(Event::Checkpoint, 1);
                let mut builder = Db::builder(&to).options(self.setup.options.clone());
                builder = builder.vfs(shared(&self.disk));
                if !self.setup.threads {
                    builder = builder.runtime(self.simulator.handle());
                }
                let copy = self.wait(builder.open_read_only()).map_err(text)?;
                let mut found = Map::new();
                for at in 0..KEYSPACES {
                    let Some(theirs) = copy.keyspace(&name(at)) else { continue };
                    found.insert(tagged(at, b""), Vec::new());
                    let entries = self.wait(collect(theirs.scan(..))).map_err(text)?;
                    found.extend(entries.into_iter().map(|(key, value)| (tagged(at, &key), value)));
                }
                difference(&self.model, &found).map_or(Ok(()), Err)?;
            }
            Op::Rest => {
                if !self.setup.threads {
                    self.simulator.settle();
                }
            }
            Op::Pass(ms) => {
                for _ in 0..3 {
                    if !self.setup.threads {
                        self.simulator.advance(Duration::from_millis(*ms));
                        self.simulator.settle();
                    }
                }
            }
            Op::CloseOpen => {
                self.take_stock();
                self.wait(self.db().close()).map_err(text)?;
                self.handles = Default::default();
                self.reopen()?;
                if self.db().stats().recovered_entries > 0 {
                    return Err("log entries were left behind by a clean close".to_owned());
                }
                self.compare_content()?;
            }
            Op::DropOpen => {
                self.take_stock();
                self.handles = Default::default();
                self.reopen()?;
                self.compare_content()?;
            }
            Op::PowerCut(seed) => self.power_cut(*seed)?,
        }
        Ok(())
    }

    fn take_all(&self, mut scan: Scan, in_batches: bool) -> Result<Entries, String> {
        if !in_batches {
            return self.wait(collect(scan)).map_err(text);
        }
        self.wait(async {
            let mut entries = Entries::new();
            while let Some(batch) = scan.next_chunk().await.map_err(text)? {
                for at in 0..batch.len() {
                    entries.push((batch.key(at).to_vec(), batch.value(at).to_vec()));
                }
            }
            Ok(entries)
        })
    }

    /// Takes single entries, or one batch, and compares them with the expected ones.
    fn step_iterator(&self, iterating: &mut Iterating, entries: usize) -> Result<(), String> {
        let Iterating { scan, rest, in_batches } = iterating;
        let mut found = Entries::new();
        let mut ended = false;
        if *in_batches && entries.is_multiple_of(3) {
            if let Some(batch) = self.wait(scan.next_chunk()).map_err(text)? {
                for at in 0..batch.len() {
                    found.push((batch.key(at).to_vec(), batch.value(at).to_vec()));
                }
            } else {
                ended = true;
            }
        } else {
            for _ in 0..entries {
                let Some(entry) = self.wait(scan.next()) else {
                    ended = true;
                    break;
                };
                let (key, value) = entry.map_err(text)?;
                found.push((key.to_vec(), value.to_vec()));
            }
        }
        let wanted: Entries = rest.take(found.len()).collect();
        same_entries(&wanted, &found)?;
        match rest.as_slice().first() {
            Some((key, _)) if ended => Err(format!("ended before {}", Shown(key))),
            _ => Ok(()),
        }
    }
}

fn start<'a>(
    how: &'a ScanOf,
    range: impl Fn((Bound<&'a [u8]>, Bound<&'a [u8]>)) -> Scan,
    prefix: impl Fn(&'a [u8]) -> Scan,
) -> Scan {
    let mut scan = match &how.prefix {
        Some(bytes) => prefix(bytes),
        None => range((borrowed(&how.lo), borrowed(&how.hi))),
    };
    if how.reverse {
        scan = scan.rev();
    }
    if how.keys_only {
        scan = scan.keys_only();
    }
    match how.limit {
        Some(limit) => scan.limit(limit),
        None => scan,
    }
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn wanted(model: &Map, how: &ScanOf) -> Entries {
    let Some(prefix) = &how.prefix else {
        let bounds = (borrowed(&how.lo), borrowed(&how.hi));
        return oracle::scan(model, bounds, how.reverse, how.limit, how.keys_only);
    };
    let inside = model.iter().filter(|(key, _)| key.starts_with(prefix));
    let inside: Map = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
    let all = (Bound::Unbounded, Bound::Unbounded);
    oracle::scan(&inside, all, how.reverse, how.limit, how.keys_only)
}

fn same_value(key: &[u8], want: Option<&Vec<u8>>, found: Option<&[u8]>) -> Result<(), String> {
    if want.map(Vec::as_slice) == found {
        return Ok(());
    }
    let want = want.map(|value| Shown(value));
    Err(format!("{} is {:?}, should be {want:?}", Shown(key), found.map(Shown)))
}

fn same_entries(want: &Entries, found: &Entries) -> Result<(), String> {
    if want == found {
        return Ok(());
    }
    let at = want.iter().zip(found).position(|(a, b)| a != b);
    let at = at.unwrap_or(want.len().min(found.len()));
    let show = |entries: &Entries| {
        entries.get(at).map_or("nothing".to_owned(), |(key, value)| {
            format!("{} = {}", Shown(key), Shown(value))
        })
    };
    let (want_at, found_at) = (show(want), show(found));
    let (want, found) = (want.len(), found.len());
    Err(format!(
        "entry {at} is {found_at}, should be {want_at} ({found} entries, should be {want})"
    ))
}
