//! Reads of an unwritten batch: by itself, and over a snapshot.

use crate::harness::Simulated;
use crate::kit::chance::Chance;
use crate::kit::oracle::Map;
use crate::kit::settings;
use futures::TryStreamExt;
use sluicedb::{Db, ErrorKind, KeyspaceRef, OnEmpty, Operation, Snapshot, WriteBatch};

fn key(n: usize) -> Vec<u8> {
    format!("k{n:03}").into_bytes()
}

/// Adds operations on some keys below 200, and does the same to the model.
fn draw(chance: &mut Chance, batch: &mut WriteBatch, model: &mut Map, delete_ranges: bool) {
    for round in 0..chance.below(60) {
        let (a, b) = (chance.below(200), chance.below(200));
        if delete_ranges && chance.one_in(12) {
            let (a, b) = (a.min(b), a.max(b));
            if chance.one_in(5) {
                batch.delete_range(key(a)..);
                model.retain(|one, _| *one < key(a));
            } else {
                batch.delete_range(key(a)..key(b));
                model.retain(|one, _| *one < key(a) || *one >= key(b));
            }
        } else if chance.one_in(3) {
            batch.delete(key(a));
            model.remove(&key(a));
        } else {
            let value = format!("{round}").repeat(1 + b / 4).into_bytes();
            batch.put(key(a), &value);
            model.insert(key(a), value);
        }
    }
}

async fn is_shown(view: &Snapshot, model: &Map, chance: &mut Chance) {
    for n in 0..200 {
        let wanted = model.get(&key(n));
        assert_eq!(view.get(key(n)).await.unwrap().as_deref(), wanted.map(|value| &value[..]));
        assert_eq!(view.contains_key(key(n)).await.unwrap(), wanted.is_some());
    }
    for _ in 0..8 {
        let (a, b) = (chance.below(200), chance.below(220));
        let (a, b) = (key(a.min(b)), key(a.max(b)));
        let entries = |(key, value): (bytes::Bytes, bytes::Bytes)| (key.to_vec(), value.to_vec());
        let inside = || model.range(a.clone()..b.clone()).map(|(k, v)| (k.clone(), v.clone()));
        let forward: Vec<_> = view.scan(&a..&b).map_ok(entries).try_collect().await.unwrap();
        assert_eq!(forward, inside().collect::<Vec<_>>());
        let back: Vec<_> = view.scan(&a..&b).rev().map_ok(entries).try_collect().await.unwrap();
        assert_eq!(back, inside().rev().collect::<Vec<_>>());
    }
}

/// Goal: reads show the database as it will be after the batch. In memory and in tables, over
/// several ranges, with small blocks.
///
/// Planted: the batch's deletes left out of the merge; a range delete that removes the batch's own
/// puts as well; a seek past a deleted range that skips the key behind it.
#[test]
fn a_batch_over_a_snapshot_shows_what_writing_it_will() {
    for seed in 0..12 {
        let mut chance = Chance::new(seed);
        let mut options = settings::tiny();
        if seed % 2 == 1 {
            options.initial_split_keys = vec![key(50), key(120)];
        }
        let home = Simulated::with(seed, options);
        let db = home.open();
        home.run(async {
            let mut model = Map::new();
            for _ in 0..12 {
                let mut batch = WriteBatch::new();
                draw(&mut chance, &mut batch, &mut model, false);
                db.write(batch).await.unwrap();
                if chance.one_in(3) {
                    db.flush().await.unwrap();
                }
            }
            let (snapshot, before) = (db.snapshot(), model.clone());
            for _ in 0..4 {
                let (mut batch, mut model) = (WriteBatch::new(), before.clone());
                draw(&mut chance, &mut batch, &mut model, true);
                let mine = snapshot.with_batch(&batch).unwrap();
                // It is an instant: later changes of the batch are not in it.
                let kept = batch.clone();
                batch.put(key(7), "later");
                is_shown(&mine, &model, &mut chance).await;
                is_shown(&snapshot, &before, &mut chance).await;
                drop(kept);
            }
            let mut batch = WriteBatch::new();
            draw(&mut chance, &mut batch, &mut model, true);
            db.write(batch).await.unwrap();
            is_shown(&db.snapshot(), &model, &mut chance).await;
        });
    }
}

/// Goal: a limit that ends a scan on the last key of a range, and a seek that lifts it again, lose
/// no key of the next range in front of the batch's.
///
/// Planted: the place of a closed scan on a key of the batch that is in another range.
#[test]
fn a_limit_that_a_seek_lifts_loses_no_key_behind_a_range() {
    type Case<'a> = (&'a [&'a str], &'a str, bool, &'a [&'a str], &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        (&["b", "c", "d", "n"], "p", false, &["b"], "d", &["d", "n"]),
        (&["b", "c", "d", "e", "n"], "p", false, &["b"], "e", &["e", "n"]),
        (&["b", "n", "o", "q"], "d", true, &["q"], "n", &["n", "d"]),
        (&["b", "e", "n", "o", "q"], "d", true, &["q"], "n", &["n", "e"]),
    ];
    for (entries, own, reverse, before, to, after) in cases {
        let mut options = settings::tiny();
        options.initial_split_keys = vec![b"m".to_vec()];
        let home = Simulated::with(7, options);
        let db = home.open();
        home.run(async {
            for key in entries {
                db.put(key, "v").await.unwrap();
            }
            let mut batch = WriteBatch::new();
            batch.put(own, "v");
            let mine = db.snapshot().with_batch(&batch).unwrap();
            let scan = mine.scan(..);
            let mut scan = if reverse { scan.rev() } else { scan }.limit(3);
            for (at, key) in before.iter().chain(after).enumerate() {
                if at == before.len() {
                    scan.seek(to);
                }
                assert_eq!(scan.try_next().await.unwrap().unwrap().0, key, "{entries:?}");
            }
            assert_eq!(scan.try_next().await.unwrap(), None);
        });
    }
}

#[test]
fn a_batch_over_a_snapshot_is_in_its_keyspaces() {
    let home = Simulated::new(3);
    let db = home.open();
    home.run(async {
        let other = db.keyspace("other").await.unwrap();
        db.put("k", "1").await.unwrap();
        other.put("k", "2").await.unwrap();
        other.put("l", "3").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put("k", "mine").delete_range_in(&other, "l"..).put_in(&db, "d", "default");
        let value = |of: &Snapshot, key: &'static str| {
            let of = of.clone();
            async move { of.get(key).await.unwrap().map(|value| value.to_vec()) }
        };
        let mine = other.snapshot().with_batch(&batch).unwrap();
        assert_eq!(value(&mine, "k").await.as_deref(), Some(&b"mine"[..]));
        assert_eq!(value(&mine, "l").await, None);
        let of_default = mine.of(&db).unwrap();
        assert_eq!(value(&of_default, "k").await.as_deref(), Some(&b"1"[..]));
        assert_eq!(value(&of_default, "d").await.as_deref(), Some(&b"default"[..]));
        assert_eq!(other.multi_get(&["k"]).await.unwrap()[0].as_deref(), Some(&b"2"[..]));

        // A keyspace that is newer than the snapshot, one of another database, and a bad key.
        let before = db.snapshot();
        let late = db.keyspace("late").await.unwrap();
        let mut batch = WriteBatch::new();
        batch.put_in(&late, "k", "v");
        assert_eq!(before.with_batch(&batch).unwrap_err().kind(), ErrorKind::Invalid);
        batch.clear();
        batch.put("", "v");
        assert_eq!(before.with_batch(&batch).unwrap_err().kind(), ErrorKind::Invalid);
        let elsewhere = Simulated::new(4);
        let stranger = elsewhere.open();
        let mut batch = stranger.batch();
        batch.put("k", "v");
        assert_eq!(before.with_batch(&batch).unwrap_err().kind(), ErrorKind::Invalid);
    });
}

/// Whatever copies a snapshot copies the writes over it too.
#[test]
fn a_batch_over_a_snapshot_is_taken_over_with_it() {
    let home = Simulated::new(5);
    let db: Db = home.open();
    home.run(async {
        let copy = db.keyspace("copy").await.unwrap();
        for n in 0..200 {
            db.put(key(n), vec![1; 300]).await.unwrap();
        }
        db.compact().await.unwrap();
        let mut batch = db.batch();
        batch.delete(key(10)).put(key(20), "mine").delete_range(key(30)..key(40));
        let mine = db.snapshot().with_batch(&batch).unwrap();
        copy.replace_from(&mine, [..], OnEmpty::Refuse).await.unwrap();
        assert_eq!(copy.get(key(10)).await.unwrap(), None);
        assert_eq!(copy.get(key(20)).await.unwrap().as_deref(), Some(&b"mine"[..]));
        let left: Vec<_> = copy.scan(..).keys_only().try_collect().await.unwrap();
        assert_eq!(left.len(), 189);
    });
}

#[test]
fn a_user_names_what_is_in_a_batch() {
    fn told(operation: &Operation<'_>, of: KeyspaceRef) -> String {
        let mine = operation.keyspace() == Some(of);
        match operation {
            Operation::Put { key, value, .. } => format!("{mine} put {key:?} {value:?}"),
            Operation::Delete { key, .. } => format!("{mine} delete {key:?}"),
            Operation::DeleteRange { from, to, .. } => format!("{mine} range {from:?} {to:?}"),
            _ => unreachable!(),
        }
    }
    let home = Simulated::new(6);
    let db = home.open();
    let mut batch = db.batch();
    batch.put([1], [2]).delete([3]).delete_range([4]..[5]);
    let told: Vec<_> = batch.operations().map(|one| told(&one, KeyspaceRef::from(&db))).collect();
    assert_eq!(told, ["true put [1] [2]", "true delete [3]", "true range [4] Some([5])"]);
}
