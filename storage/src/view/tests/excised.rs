//! Spans that are cut out of tables, which others are merged with afterwards.

use super::landings::Random;
use super::*;
use crate::keyspace::KeyspaceSpan;

impl Toy {
    /// Nothing is in `spans` any more. All is in tables.
    fn excise(&mut self, spans: &[Span]) {
        while !self.running.is_empty() {
            self.end(0);
        }
        for range in 0..self.superversion.ranges.len() {
            self.seal(range);
            self.flush(range, true);
        }
        self.seqno = self.seqno.next();
        let of_default: Vec<_> = spans.iter().cloned().map(KeyspaceSpan::of_default).collect();
        let edit = self.version().replace(&of_default, &[], &self.options, 0).unwrap();
        *self.done.entry("excised").or_default() +=
            edit.added.iter().filter(|(_, _, slice)| slice.part.is_some()).count();
        let ranges = self.superversion.ranges.clone();
        self.install(&edit.stamped(self.seqno), ranges);
        self.model.retain(|key, _| !spans.iter().any(|span| span.contains(key)));
    }
}

/// Goal: a part of a table whose file has more keys answers for its own: no key beside its bounds
/// is found by a lookup, or shown by a scan from either side; filters and indexes, which know the
/// others, deny none of its own; and a merge takes no more of it.
///
/// Planted: a lookup that asks the table without its bounds; a cursor that goes on behind its last
/// key; one that begins in front of its first when it walks backwards.
#[test]
fn x_14_a_part_of_a_table_finds_its_own_keys_and_no_others() {
    let mut cut = 0;
    for seed in 1..=10 {
        println!("seed {seed}");
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut toy = Toy::new(&[&b"key30"[..]][..random.below(2) as usize]);
        let mut old = Vec::new();
        for _ in 0..60 {
            for _ in 0..random.below(50) {
                let key = key_of(random.below(u64::from(KEYS)) as u16);
                let value = vec![random.below(256) as u8; random.below(200) as usize];
                toy.write(&key, (random.below(5) > 0).then_some(&value[..]));
            }
            for _ in 0..random.below(4) {
                toy.compact();
            }
            let mut ends: Vec<_> =
                (0..4).map(|_| key_of(random.below(u64::from(KEYS)) as u16)).collect();
            ends.sort();
            ends.dedup();
            // Some spans begin or end between two keys.
            ends.iter_mut().filter(|_| random.below(3) == 0).for_each(|end| end.push(b'+'));
            let span = |pair: &[Vec<u8>]| Span {
                lo: pair[0].clone().into(),
                hi: Some(pair[1].clone().into()),
            };
            let spans: Vec<_> = ends.chunks_exact(2).map(span).collect();
            if random.below(3) == 0 {
                old.push((toy.view(), toy.model.clone()));
            }
            toy.excise(&spans);
            let bounded = |span: &Span, reverse| (span.clone(), reverse, 7);
            let mut scans: Vec<_> =
                spans.iter().flat_map(|span| [false, true].map(|r| bounded(span, r))).collect();
            scans.extend([(Span::all(), false, 1000), (Span::all(), true, 3)]);
            check_view(&toy.view(), &toy.model, &scans, false);
            if let Some((view, model)) = old.first().filter(|_| random.below(4) == 0) {
                check_view(view, model, &scans, false);
                old.remove(0);
            }
        }
        drop(old);
        toy.compact_all();
        check_view(
            &toy.view(),
            &toy.model,
            &[(Span::all(), false, 1000), (Span::all(), true, 3)],
            false,
        );
        assert!(toy.version().slices().all(|(_, _, slice)| slice.part.is_none()));
        cut += toy.done["excised"];
    }
    assert!(cut >= 200, "{cut}");
}
