//! A sorted map of versions, and the checks of a memtable against it.

use super::*;

pub(super) fn seeds() -> Vec<u64> {
    let fresh = RandomState::new().hash_one("a seed that no run had before");
    let seeds = vec![0x5EED_0001, 0x5EED_0002, fresh | 1];
    println!("seeds: {seeds:#x?}");
    seeds
}

pub(super) fn key(random: &mut Random) -> Vec<u8> {
    match random.below(6) {
        0 => {
            let len = 1 + random.below(6);
            (0..len).map(|_| [0x00, 0xFF, b'a', 0x01][random.below(4)]).collect()
        }
        1 => {
            let mut key = b"a long prefix that many of the keys here share, far beyond a word"
                [..=random.below(64)]
                .to_vec();
            if random.below(2) == 0 {
                key.push(random.next() as u8);
            }
            key
        }
        2 => vec![b'x', random.next() as u8],
        3 => format!("user:{:010}", random.below(400)).into_bytes(),
        4 => random.next().to_be_bytes().to_vec(),
        _ => vec![0; 1 + random.below(40)],
    }
}

pub(super) type Model = BTreeMap<(Vec<u8>, Reverse<u64>), (Kind, Vec<u8>)>;
pub(super) type Shown = (Vec<u8>, u64, Kind, Vec<u8>);

pub(super) fn shown(model: &Model, upto: u64) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for ((key, Reverse(seqno)), (kind, value)) in model {
        if *seqno <= upto && all.last().is_none_or(|last| last.0 != *key) {
            all.push((key.clone(), *seqno, *kind, value.clone()));
        }
    }
    all
}

pub(super) fn at(cursor: &MemtableCursor) -> Option<Shown> {
    cursor
        .valid()
        .then(|| (cursor.key().to_vec(), cursor.seqno().0, cursor.kind(), cursor.value().to_vec()))
}

/// Moves the cursor, and on to the next entry if it rests.
pub(super) fn onward(
    cursor: &mut MemtableCursor,
    step: impl FnOnce(&mut MemtableCursor) -> Result<()>,
) {
    step(cursor).unwrap();
    while cursor.valid() && cursor.seqno() == Seqno::ZERO {
        cursor.next().unwrap();
    }
}

pub(super) fn backward(
    cursor: &mut MemtableCursor,
    step: impl FnOnce(&mut MemtableCursor) -> Result<()>,
) {
    step(cursor).unwrap();
    while cursor.valid() && cursor.seqno() == Seqno::ZERO {
        cursor.prev().unwrap();
    }
}

pub(super) fn model_get(model: &Model, key: &[u8], upto: u64) -> Option<(u64, Kind, Vec<u8>)> {
    let from = (key.to_vec(), Reverse(upto));
    let ((found, Reverse(seqno)), (kind, value)) = model.range(from..).next()?;
    (found == key).then(|| (*seqno, *kind, value.clone()))
}

pub(super) fn lookup(table: &Memtable, key: &[u8], upto: u64) -> Option<(u64, Kind, Vec<u8>)> {
    let pin = table.pin();
    let version = pin.get(key, Seqno(upto)).version?;
    Some(match version.value(usize::MAX).unwrap() {
        Some(value) => (version.seqno().0, Kind::Put, value.to_vec()),
        None => (version.seqno().0, Kind::Delete, Vec::new()),
    })
}

pub(super) fn check_get(table: &Memtable, model: &Model, key: &[u8], upto: u64) {
    let found = lookup(table, key, upto);
    assert_eq!(found, model_get(model, key, upto), "get({key:?}, {upto})");
}

pub(super) fn check_cursor(table: &Arc<Memtable>, model: &Model, upto: u64, random: &mut Random) {
    let expected = shown(model, upto);
    let mut cursor = table.cursor(Seqno(upto));
    assert!(!cursor.valid());
    onward(&mut cursor, Cursor::seek_first);
    for entry in &expected {
        assert_eq!(at(&cursor).as_ref(), Some(entry), "forward at {upto}");
        onward(&mut cursor, Cursor::next);
    }
    assert_eq!(at(&cursor), None);
    backward(&mut cursor, Cursor::seek_last);
    for entry in expected.iter().rev() {
        assert_eq!(at(&cursor).as_ref(), Some(entry), "backward at {upto}");
        backward(&mut cursor, Cursor::prev);
    }
    assert_eq!(at(&cursor), None);
    for _ in 0..20 {
        let target = if random.below(2) == 0 || expected.is_empty() {
            key(random)
        } else {
            expected[random.below(expected.len())].0.clone()
        };
        let mut place = expected.partition_point(|entry| entry.0 < target);
        if random.below(2) == 0 {
            onward(&mut cursor, |cursor| cursor.seek(&target));
        } else {
            backward(&mut cursor, |cursor| cursor.seek_before(&target));
            place = place.wrapping_sub(1);
        }
        for _ in 0..10 {
            assert_eq!(at(&cursor).as_ref(), expected.get(place), "around {target:?} at {upto}");
            if !cursor.valid() {
                break;
            }
            if random.below(2) == 0 {
                onward(&mut cursor, Cursor::next);
                place += 1;
            } else {
                backward(&mut cursor, Cursor::prev);
                place = place.wrapping_sub(1);
            }
        }
    }
    onward(&mut cursor, |cursor| cursor.seek(b""));
    assert_eq!(at(&cursor).as_ref(), expected.first());
    backward(&mut cursor, |cursor| cursor.seek_before(b""));
    assert_eq!(at(&cursor), None);
}

pub(super) fn operation(random: &mut Random, seqno: u64) -> (Vec<u8>, Kind, Vec<u8>) {
    let key = key(random);
    if random.below(5) == 0 {
        return (key, Kind::Delete, Vec::new());
    }
    let mut value = seqno.to_le_bytes().to_vec();
    value.resize(random.below(40), seqno as u8);
    (key, Kind::Put, value)
}
