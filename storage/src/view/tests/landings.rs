//! Landings of many sizes, with tables that are set aside for a while, and switched off in the end.

use super::*;
use crate::keyspace::KeyspaceId;
pub(super) use crate::vfs::chance::Chance as Random;

const ALL: [(Span, bool, usize); 2] = [
    (Span { lo: Bytes::new(), hi: None }, false, 1000),
    (Span { lo: Bytes::new(), hi: None }, true, 7),
];

impl Toy {
    /// Runs what is due until nothing is. Panics if that does not end.
    fn settle(&mut self) {
        for _ in 0..3000 {
            self.begin();
            if self.running.is_empty() {
                return;
            }
            self.end(0);
        }
        panic!("there is always something due: {:?} {:?}", self.done, self.options);
    }
}

/// Goal: whatever is set aside, and however small a landing is, no entry is lost or comes back; the
/// choice comes to an end; L0 goes down when nothing is set aside; and a landing that is switched
/// off drains away.
///
/// Planted: a drain that forgets what it cut off; claims that do not count keys.
#[test]
fn t000_09_no_size_of_a_landing_and_nothing_set_aside_loses_or_revives_an_entry() {
    let seeds = std::env::var("T000_SEEDS").map_or(8, |n| n.parse().unwrap());
    let mut cut = 0;
    for seed in 1..=seeds {
        println!("seed {seed}");
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut toy = Toy::new(&[&b"key30"[..]][..random.below(2) as usize]);
        toy.options.landing_runs_max = random.pick(&[1, 2, 3, 4, 12]);
        toy.options.landing_batch = random.pick(&[1, 2, 4, 8]);
        toy.options.keep_trigger = random.pick(&[1.0, 1.0, 2.0, f64::INFINITY]);
        toy.options.drain_ratio = random.pick(&[1, 1, 2, 8]);
        toy.options.table_bytes_max = random.pick(&[64, 500, 1500]);
        toy.options.level_base_bytes = random.pick(&[500, 2000]);
        let sparse = random.below(2) == 0;
        let ranges = toy.superversion.ranges.len();
        for round in 0..150 {
            for _ in 0..random.below(60) {
                let key = key_of(random.below(u64::from(KEYS)) as u16);
                let value = vec![random.below(256) as u8; random.below(200) as usize];
                toy.write(&key, (random.below(4) > 0).then_some(&value[..]));
            }
            for range in 0..ranges {
                if random.below(3) > 0 {
                    toy.seal(range);
                    toy.flush(range, true);
                }
            }
            if random.below(4) == 0 {
                let tables: Vec<_> =
                    toy.version().slices().map(|(_, _, slice)| slice.name()).collect();
                let count = if sparse { 1 } else { random.below(5) };
                toy.set_aside.clear();
                for _ in 0..count.min(tables.len() as u64) {
                    let at = random.below(tables.len() as u64) as usize;
                    toy.set_aside.insert(tables[at].clone());
                }
            } else if random.below(6) == 0 {
                toy.set_aside.clear();
            }
            toy.rests = random.below(8) == 0;
            for _ in 0..random.below(5) {
                toy.begin();
            }
            for _ in 0..random.below(5) {
                toy.end(random.below(9) as usize);
            }
            if round % 8 == 0 {
                check_view(&toy.view(), &toy.model, &ALL, false);
            }
        }
        toy.set_aside.clear();
        toy.rests = seed % 2 == 0;
        toy.settle();
        for range in toy.version().ranges().iter().filter(|_| toy.rests) {
            assert_eq!(compact::quiet_needed_ms(range, &toy.options), None, "something waits");
        }
        for range in toy.version().ranges() {
            let due = compact::score(range, Place::L0, &toy.options);
            assert!(due.is_none_or(|score| score < 1.0), "{due:?}");
        }
        check_view(&toy.view(), &toy.model, &ALL, false);
        toy.options.landing_runs_max = 0;
        toy.settle();
        let version = toy.version();
        let landed = version.slices().find(|(_, place, _)| matches!(place, Place::Landing(..)));
        assert!(landed.is_none(), "{landed:?}");
        check_view(&toy.view(), &toy.model, &ALL, false);
        toy.compact_all();
        check_view(&toy.view(), &toy.model, &ALL, false);
        cut += toy.done.get("cut").copied().unwrap_or(0);
    }
    assert!(cut >= 10, "{cut}");
}

impl Toy {
    /// A table of these keys, each with a sequence number and a value that cannot be compressed to
    /// nothing.
    fn table(&mut self, entries: &[(&str, u64, usize)]) -> SliceMeta {
        let mut next = self.next_number;
        let mut sink = self.sink(&mut next);
        for (key, seqno, len) in entries {
            let mut random = Random(*seqno * 0x9E37_79B9 + 1);
            let value: Vec<_> = (0..*len).map(|_| random.below(256) as u8).collect();
            sink.add(key.as_bytes(), Seqno(*seqno), Kind::Put, &value).unwrap();
        }
        let meta = sink.finish().unwrap().remove(0);
        self.next_number = next;
        SliceMeta::whole(meta)
    }

    fn bring(&mut self, tables: Vec<(Place, SliceMeta)>) {
        let id = self.superversion.ranges[0].id();
        let added = tables.into_iter().map(|(place, slice)| (id, place, slice)).collect();
        let ranges = self.superversion.ranges.clone();
        self.install(&VersionEdit { added, ..VersionEdit::default() }, ranges);
    }
}

/// Two slices came into a landing at once, and the keep ends between them, because the older one is
/// large. What it writes is as old as what landed at once, and has smaller sequence numbers than
/// the slice that stayed: it must not be taken for older.
///
/// Planted: a keep that ends anywhere.
#[test]
fn t000_08_a_keep_does_not_part_what_landed_at_once() {
    let mut toy = Toy::new(&[]);
    toy.options.table_bytes_max = 500;
    toy.options.level_base_bytes = 1 << 20;
    let landing = Place::Landing(2, 1);
    let at =
        |epoch, slice| (landing, SliceMeta { landed: Some(Landed { epoch, at_ms: 1 }), ..slice });
    let main = toy.table(&[("key00", 1, 100_000), ("key59", 2, 100_000)]);
    let upper = toy.table(&[("key00", 95, 600), ("key05", 94, 600)]);
    let lower = toy.table(&[("key10", 50, 7), ("key20", 90, 9000)]);
    let newer = toy.table(&[("key03", 61, 10), ("key10", 60, 8)]);
    toy.bring(vec![(Place::Main(2), main), at(5, upper), at(5, lower), at(6, newer)]);
    toy.seqno = Seqno(100);
    let read = |toy: &Toy| toy.value_len(b"key10");
    assert_eq!(read(&toy), Some(8));
    assert!(toy.begin(), "a keep is due");
    assert_eq!(toy.running[0].why.choice, Choice::Keep);
    toy.end(0);
    assert_eq!(read(&toy), Some(8), "the newer one");
}

/// A key in each of the four shards of all keys.
fn spread(n: u16) -> Vec<u8> {
    vec![(n % 4 * 0x40) as u8, (n / 4) as u8 + 1]
}

impl Toy {
    /// All that is in memory goes to L0, cut at the bounds between shards or not.
    fn flush_cut(&mut self, cut: bool) {
        self.seal(0);
        let shards = self.superversion.ranges[0].stable.shards.clone();
        if !cut {
            self.set_shards(Shards::one());
        }
        self.flush(0, true);
        self.set_shards(shards);
    }

    fn set_shards(&mut self, shards: Shards) {
        let mut ranges = self.superversion.ranges.clone();
        let mut stable = RangeVersion::clone(&ranges[0].stable);
        stable.shards = shards;
        ranges[0].stable = Arc::new(stable);
        let Superversion { number, epoch, born, .. } = *self.superversion;
        self.superversion =
            Arc::new(Superversion::new(number, epoch, born, Arc::default(), ranges));
    }

    /// What is there, as a model.
    fn view_model(&self) -> Model {
        let view = View::new(Arc::clone(&self.superversion), Seqno(9));
        scan(&view, &ScanSpec::new(KeyspaceId::DEFAULT, Span::all()), 1000, false)
            .into_iter()
            .collect()
    }

    /// The numbers of the tables in a place, newest first or in key order.
    fn numbers(&self, place: Place) -> Vec<FileNumber> {
        let version = self.version();
        version.ranges()[0].layers.in_order(place).iter().map(|slice| slice.number()).collect()
    }

    /// Chooses and runs jobs until one of this kind was run.
    fn until(&mut self, choice: Choice) {
        for _ in 0..50 {
            assert!(self.begin(), "{} never came: {:?}", choice.name(), self.done);
            let is_it = self.running[0].why.choice == choice;
            self.end(0);
            if is_it {
                return;
            }
        }
        panic!("{} never came: {:?}", choice.name(), self.done);
    }
}

/// Tables of all sizes go into a landing, and its bounds move. A slice of it lies in its shard,
/// always.
///
/// Planted: a landing that cuts nothing; a cut that leaves the key at the bound on the wrong side;
/// one that keeps the old shards.
#[test]
fn t000_02_what_lies_in_a_landing_lies_in_its_shard() {
    let mut toy = Toy::new(&[]);
    toy.options.levels_max = 1;
    toy.options.l0_trigger = 2;
    toy.options.landing_runs_max = 100;
    toy.options.keep_trigger = f64::INFINITY;
    let shards_met = |toy: &Toy| {
        let version = toy.version();
        let range = &version.ranges()[0];
        let mut met = BTreeSet::new();
        for (place, slice) in range.layers.slices() {
            let Place::Landing(_, shard) = place else { continue };
            met.insert(shard);
            for key in [slice.min_key(), slice.max_key()] {
                assert_eq!(range.shards.index(key), usize::from(shard), "{slice:?}");
            }
        }
        met.len()
    };
    // The level is large where most is written.
    let keys: Vec<_> = (1..=40_u8).map(|n| String::from_utf8(vec![b'A', n]).unwrap()).collect();
    let entries: Vec<_> = keys.iter().map(|key| (&key[..], 1, 8000)).collect();
    let main = toy.table(&entries);
    toy.bring(vec![(Place::Main(1), main)]);
    toy.model = toy.view_model();
    toy.seqno = Seqno(9);
    let write = |toy: &mut Toy, keys: &dyn Fn(u16) -> Vec<u8>| {
        (0..40).for_each(|n| toy.write(&keys(n), Some(&[n as u8; 60])));
    };
    write(&mut toy, &spread);
    toy.flush_cut(true);
    assert_eq!(toy.numbers(Place::L0).len(), 4, "cut at each bound");
    write(&mut toy, &spread);
    toy.flush_cut(false);
    assert_eq!(toy.numbers(Place::L0).len(), 5, "a small one is not");
    toy.options.shards = 1;
    toy.until(Choice::Land);
    assert_eq!((shards_met(&toy), toy.numbers(Place::L0).len()), (4, 0));
    // From now on everything comes to one shard.
    toy.options.shards = 4;
    for _ in 0..8 {
        write(&mut toy, &|n| vec![b'A', n as u8 + 1]);
        toy.flush_cut(true);
    }
    let before = toy.superversion.ranges[0].stable.shards.clone();
    toy.until(Choice::Reshard);
    assert_ne!(toy.superversion.ranges[0].stable.shards, before);
    toy.until(Choice::Land);
    assert!(shards_met(&toy) > 1);
    check_view(&toy.view(), &toy.model, &ALL, false);
}

/// Twelve versions of each key come into a landing, and tombstones: of a key that the level has,
/// and of one that nothing has. A keep leaves one version of each, all tombstones, and the level as
/// it was.
///
/// Planted: a tombstone that goes although the output is a landing.
#[test]
fn t000_08_x_02_a_keep_changes_no_level_and_loses_no_tombstone() {
    let mut toy = Toy::new(&[]);
    toy.options.levels_max = 1;
    toy.options.landing_runs_max = 100;
    toy.options.shards = 1;
    let main = toy.table(&[("key00", 1, 90_000), ("key01", 2, 90), ("key59", 3, 300_000)]);
    toy.bring(vec![(Place::Main(1), main)]);
    toy.model = toy.view_model();
    toy.seqno = Seqno(9);
    let mut old = None;
    for round in 0..12_u8 {
        for key in 10..14 {
            toy.write(&key_of(key), Some(&[round; 40]));
        }
        toy.write(b"key01", None);
        toy.write(b"key90", None);
        toy.seal(0);
        toy.flush(0, true);
        if toy.numbers(Place::L0).len() >= toy.options.l0_trigger {
            toy.until(Choice::Land);
        }
        if round == 7 {
            old = Some((toy.view(), toy.model.clone()));
        }
    }
    let landing = Place::Landing(1, 1);
    let main = toy.numbers(Place::Main(1));
    assert!(toy.numbers(landing).len() >= 8, "{:?}", toy.done);
    while toy.numbers(landing).len() > 1 {
        toy.until(Choice::Keep);
    }
    assert_eq!(toy.numbers(Place::Main(1)), main, "the level is the same");
    let kept = toy.version().ranges()[0].layers.in_order(landing).remove(0);
    assert_eq!((kept.entries(), kept.tombstones()), (6, 2), "one version of each key");
    check_view(&toy.view(), &toy.model, &ALL, false);
    let (view, model) = old.expect("taken in round 7");
    check_view(&view, &model, &ALL, false);
}

/// What a level hands to a landing has smaller sequence numbers than what came there before, and
/// newer entries.
///
/// Planted: an epoch that is not raised.
#[test]
fn t000_09_what_lands_later_is_newer_whatever_its_sequence_numbers() {
    let mut toy = Toy::new(&[]);
    toy.options.levels_max = 2;
    toy.options.level_base_bytes = 1000;
    toy.options.keep_trigger = f64::INFINITY;
    let main = toy.table(&[("key00", 1, 100_000), ("key59", 2, 100_000)]);
    let before = toy.table(&[("key10", 50, 7), ("key20", 90, 900)]);
    let level = toy.table(&[("key05", 40, 3000), ("key10", 60, 8)]);
    let landed = Some(Landed { epoch: 5, at_ms: 1 });
    toy.bring(vec![
        (Place::Main(1), level),
        (Place::Landing(2, 1), SliceMeta { landed, ..before }),
        (Place::Main(2), main),
    ]);
    toy.seqno = Seqno(100);
    let read = |toy: &Toy| toy.value_len(b"key10");
    assert_eq!(read(&toy), Some(8));
    toy.until(Choice::Land);
    assert_eq!(toy.numbers(Place::Landing(2, 1)).len(), 2);
    assert_eq!(read(&toy), Some(8), "the newer one");
}

/// A value and, in a newer table, its tombstone are in the landing; the older table is set aside.
/// The newer one does not go down alone, so the value does not come back: neither while that lasts
/// nor afterwards.
///
/// Planted: a drain that does not ask whether what it takes is closed towards the older ones.
#[test]
fn x_01_a_tombstone_does_not_go_down_without_the_older_value() {
    let mut toy = Toy::new(&[]);
    toy.options.levels_max = 1;
    toy.options.landing_runs_max = 100;
    toy.options.keep_trigger = f64::INFINITY;
    toy.options.shards = 1;
    let left = toy.table(&[("key00", 1, 90_000), ("key19", 2, 300_000)]);
    let right = toy.table(&[("key20", 3, 90_000), ("key59", 4, 300_000)]);
    toy.bring(vec![(Place::Main(1), left), (Place::Main(1), right)]);
    toy.model = toy.view_model();
    toy.seqno = Seqno(9);
    let land = |toy: &mut Toy, value: Option<&[u8]>| {
        // A table of the key alone, and others until L0 is full.
        for key in [10, 30, 31, 32] {
            toy.write(&key_of(key), if key == 10 { value } else { Some(&[7; 100]) });
            toy.seal(0);
            toy.flush(0, true);
            if toy.numbers(Place::L0).len() >= toy.options.l0_trigger {
                break;
            }
        }
        toy.until(Choice::Land);
    };
    land(&mut toy, Some(&[1; 100]));
    let landing = Place::Landing(1, 1);
    let of_key = |toy: &Toy| -> Vec<_> {
        let slices = toy.version().ranges()[0].layers.in_order(landing);
        let has = |slice: &crate::version::Slice| slice.overlaps(b"key10", b"key10");
        slices.into_iter().filter(has).collect()
    };
    let old = of_key(&toy)[0].clone();
    toy.set_aside.insert(old.name());
    land(&mut toy, None);
    toy.options.drain_ratio = 1_000_000;
    toy.now_ms += 3_600_000;
    assert!(!toy.model.contains_key(&key_of(10)));
    let drained = |toy: &Toy| toy.done.get("drain").copied().unwrap_or(0);
    for _ in 0..30 {
        toy.compact();
        check_view(&toy.view(), &toy.model, &ALL, false);
        let there = of_key(&toy);
        assert_eq!(there.len(), 2, "both are where they were: {:?}", toy.done);
        assert_eq!(there[1].name(), old.name());
    }
    assert!(drained(&toy) > 0, "others went down: {:?}", toy.done);
    toy.set_aside.clear();
    for _ in 0..30 {
        toy.compact();
        check_view(&toy.view(), &toy.model, &ALL, false);
    }
    assert_eq!(of_key(&toy).len(), 0, "{:?}", toy.done);
    toy.compact_all();
    check_view(&toy.view(), &toy.model, &ALL, false);
}
