//! Headers and payloads, and where they may be.

use super::super::entry::check_payload;
use super::super::extent::{Extent, room};
use super::super::header::{
    EntryHeader, HEADER_BYTES_MAX, HeaderDamage, decode, encode, header_bytes,
};
use super::*;

const STATES: [EntryState; 4] =
    [EntryState::Live, EntryState::Dead, EntryState::DeadAfterCopy, EntryState::Filler];

/// Planted: `header_bytes` gives 32 bytes of payload a header of one byte.
#[test]
fn t001_01_headers_come_back_as_they_were_written() {
    for payload in [0, 1, 31, 32, 127, 128, 4095, 4096, 65_535, 1 << 21, 25 << 20, 1 << 30] {
        for state in STATES {
            let bytes = header_bytes(payload);
            let mut out = [0xEE; HEADER_BYTES_MAX];
            encode(&mut out[..bytes], payload, state);
            let header = EntryHeader { state, payload_bytes: payload, bytes };
            assert_eq!(decode(&out[..bytes]), Ok(header));
            assert_eq!(decode(&out[..bytes - 1]), Err(HeaderDamage::CutOff));
            if bytes > 1 {
                let shorter = (payload as u64) << 2 >> (7 * (bytes - 1));
                assert_ne!(shorter, 0, "{payload} does not fit a shorter header");
            }
        }
    }
}

/// Planted: `set_in` writes only the state, and loses the bit for "more follows".
#[test]
fn t001_02_a_change_of_state_changes_one_byte() {
    for payload in [1, 31, 32, 4095, 4096, 1 << 21] {
        let bytes = header_bytes(payload);
        for from in STATES {
            for to in STATES {
                let mut out = [0; HEADER_BYTES_MAX];
                encode(&mut out[..bytes], payload, from);
                let before = out;
                out[0] = to.set_in(out[0]);
                assert_eq!(out[1..], before[1..]);
                assert_eq!(out[0] & 0x80, before[0] & 0x80, "the continuation bit stays");
                let header = EntryHeader { state: to, payload_bytes: payload, bytes };
                assert_eq!(decode(&out[..bytes]), Ok(header));
            }
        }
    }
    // In the last byte of a chunk: the length continues in the next chunk.
    let mut rig = Rig::new(BufferOptions::default());
    let room = room(ChunkClass::Small) as usize;
    rig.add(room - 1 - (3 + 18));
    let number = rig.add(100);
    let entry = rig.live[&number].0;
    assert_eq!(entry.address().addr() % ChunkClass::Small.bytes(), ChunkClass::Small.bytes() - 1);
    rig.check();
    let bytes = entry.bytes();
    rig.mark_dead(number);
    assert_eq!((entry.state(), entry.bytes()), (EntryState::Dead, bytes));
    rig.check();
}

/// Goal: every position of an entry around the end of a chunk, so that each of its parts straddles
/// once.
/// Planted: `Pieces::at` forgets the next chunk's header.
#[test]
fn t001_03_entries_straddle_chunks_anywhere() {
    let room = room(ChunkClass::Small) as usize;
    for short in 0..60 {
        let mut rig = Rig::new(BufferOptions::default());
        // Leaves `short` bytes in the first chunk: 3 bytes of header, and 18 besides the value.
        rig.add(room - short - 21);
        rig.add(40);
        rig.add(3);
        rig.check();
        let chunks = rig.buffer.stats().allocated_bytes / ChunkClass::Small.bytes() as u64;
        assert_eq!(chunks, 2);
    }
    let mut rig = Rig::new(BufferOptions::default());
    rig.add(10);
    rig.add(3 * room + 1000);
    rig.add(10);
    rig.check();
    assert!(rig.buffer.stats().allocated_bytes >= 4 * ChunkClass::Small.bytes() as u64);

    let mut rig = Rig::new(BufferOptions::default());
    rig.add(room - 21);
    assert_eq!(rig.buffer.stats().allocated_bytes, 64 << 10, "the next chunk comes with its entry");
    rig.add(1);
    assert_eq!(rig.buffer.stats().allocated_bytes, 128 << 10);
    rig.check();
}

/// Planted: `check_payload` does not compare the key's length with the payload's.
#[test]
fn t001_05_damage_is_named() {
    assert_eq!(decode(&[]), Err(HeaderDamage::CutOff));
    assert_eq!(decode(&[0x80, 0x80]), Err(HeaderDamage::CutOff));
    assert_eq!(decode(&[0x80; 10]), Err(HeaderDamage::HeaderTooLong));
    let payload = |key_len: u16, rest: &[u8]| [&key_len.to_le_bytes()[..], rest].concat();
    assert_eq!(check_payload(&[]), Err(HeaderDamage::PayloadTooShort));
    assert_eq!(check_payload(&payload(1, b"k1234567")), Err(HeaderDamage::BadKeyLength));
    assert_eq!(check_payload(&payload(1, b"1234567")), Err(HeaderDamage::PayloadTooShort));
    assert_eq!(check_payload(&payload(0, b"\x01234567x")), Err(HeaderDamage::BadKeyLength));
    assert_eq!(check_payload(&payload(u16::MAX, b"\x01234567x")), Err(HeaderDamage::BadKeyLength));
    assert_eq!(check_payload(&payload(1, b"k\x02234567x")), Err(HeaderDamage::BadKind));
    assert_eq!(check_payload(&payload(1, b"k\x01234567x")), Ok(()));
    // A wrong offset: there is no entry there, and the walk reports that.
    let source = ChunkSource::new(None);
    let mut extent = Extent::new(0, ChunkClass::Small, 0);
    extent.write(&source, &[0x80; 20]);
    extent.space.dead_bytes = 20;
    assert!(extent.check().unwrap_err().contains("HeaderTooLong"));
}

/// Planted: `pad` always takes the shortest header, which is one byte short at 33.
#[test]
fn t001_10_a_filler_fills_any_number_of_bytes_exactly() {
    let room = room(ChunkClass::Small) as usize;
    let source = ChunkSource::new(None);
    let many = (0..=200).chain([4096, 4097, 4098, 4099, room - 22, room - 21]);
    for rest in many {
        let mut extent = Extent::new(0, ChunkClass::Small, 0);
        let write = |extent: &mut Extent, value_bytes: usize| {
            let value = vec![7; value_bytes];
            // SAFETY: the entry is not used after the extent.
            let _ = unsafe { extent.append(&source, &[1; 8], Seqno(1), Kind::Put, &value) };
        };
        // 21 bytes besides a value of 4 KiB or more, 19 besides a tiny one.
        let first = if room - rest > 5000 { room - rest - 21 } else { room - rest - 19 };
        write(&mut extent, first);
        let end = extent.end();
        if (room as u64 - end) as usize != rest {
            // Lengths just where the header's size changes: not every rest can be made in this way.
            continue;
        }
        extent.pad(&source);
        assert_eq!(extent.end(), room as u64);
        assert_eq!(extent.space.padded_bytes, rest as u64);
        let mut next = Extent::new(1, ChunkClass::Small, room as u64);
        write(&mut next, 10);
        extent.join(next);
        let states: Vec<_> = extent.check().unwrap().into_iter().map(|(state, _)| state).collect();
        if rest == 0 {
            assert_eq!(states, [EntryState::Live, EntryState::Live]);
        } else {
            assert_eq!(states, [EntryState::Live, EntryState::Filler, EntryState::Live]);
        }
    }
}
