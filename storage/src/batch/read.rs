//! Reading a batch: its operations, and what it does to a key.

use super::{KeyspaceRef, NamedOperation, PointOperations, WriteBatch, put_operation};
use crate::key::{Kind, Span};
use crate::keyspace::KeyspaceId;

/// One operation of a [`WriteBatch`], as it was added.
///
/// `keyspace` is the keyspace that it names. `None` is the keyspace of the handle that writes the
/// batch. Compare it with `KeyspaceRef::from(&db)`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Set `key` to `value`.
    Put {
        /// The keyspace of the key.
        keyspace: Option<KeyspaceRef>,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Remove `key`.
    Delete {
        /// The keyspace of the key.
        keyspace: Option<KeyspaceRef>,
        /// The key.
        key: &'a [u8],
    },
    /// Remove all keys of an interval.
    DeleteRange {
        /// The keyspace of the keys.
        keyspace: Option<KeyspaceRef>,
        /// The first key that is removed.
        from: &'a [u8],
        /// The first key behind the interval; `None` if there is no upper bound.
        to: Option<&'a [u8]>,
    },
}

impl<'a> Operation<'a> {
    /// The keyspace that it names; `None` is the keyspace of the handle that writes the batch.
    pub fn keyspace(&self) -> Option<KeyspaceRef> {
        let (Self::Put { keyspace, .. }
        | Self::Delete { keyspace, .. }
        | Self::DeleteRange { keyspace, .. }) = self;
        *keyspace
    }

    /// The value that it gives to its keys: `None` unless it is a put.
    pub fn value(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } | Self::DeleteRange { .. } => None,
        }
    }

    /// Does it affect this key? The keyspace is not compared.
    pub fn covers(&self, wanted: &[u8]) -> bool {
        match *self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key == wanted,
            Self::DeleteRange { from, to, .. } => from <= wanted && to.is_none_or(|to| wanted < to),
        }
    }
}

/// The operations of a [`WriteBatch`], in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    batch: &'a WriteBatch,
    points: PointOperations<'a>,
    ranges: usize,
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Operation<'a>> {
        let whose = |named| self.batch.whose(named);
        if let Some((at, named, span)) = self.batch.deleted.get(self.ranges)
            && *at <= self.points.position()
        {
            self.ranges += 1;
            let (from, to) = (&span.lo[..], span.hi.as_deref());
            return Some(Operation::DeleteRange { keyspace: whose(*named), from, to });
        }
        let NamedOperation { named, operation } = self.points.decode()?;
        let (keyspace, key, value) = (whose(named), operation.key, operation.value);
        Some(match operation.kind {
            Kind::Put => Operation::Put { keyspace, key, value },
            Kind::Delete => Operation::Delete { keyspace, key },
        })
    }
}

impl WriteBatch {
    /// The operations in the order in which they were added: puts, deletes, and deletes of ranges.
    /// Costs one decoding per operation, and no copy.
    ///
    /// # Examples
    /// ```
    /// # use sluicedb_storage::batch::{Operation, WriteBatch};
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1").delete_prefix("b").delete("c");
    /// let mut operations = batch.operations();
    /// assert!(matches!(operations.next(), Some(Operation::Put { key: b"a", value: b"1", .. })));
    /// assert!(matches!(operations.next(), Some(Operation::DeleteRange { from: b"b", .. })));
    /// assert!(matches!(operations.next(), Some(Operation::Delete { key: b"c", .. })));
    /// assert_eq!(operations.next(), None);
    /// ```
    pub fn operations(&self) -> Operations<'_> {
        Operations { batch: self, points: self.points(), ranges: 0 }
    }

    /// The last operation of the batch on `key` in the batch's own keyspace. `None` if the batch
    /// does not change the key.
    ///
    /// Searches the batch from its start. For many keys, or for what a database shows together with
    /// the batch, see `with_batch` of a snapshot.
    ///
    /// # Examples
    /// ```
    /// # use sluicedb_storage::batch::WriteBatch;
    /// let mut batch = WriteBatch::new();
    /// batch.put("a", "1").put("a", "2").put("b", "3").delete_range("b"..);
    /// assert_eq!(batch.get("a").and_then(|last| last.value()), Some(&b"2"[..]));
    /// assert!(batch.get("b").is_some_and(|last| last.value().is_none()), "it is deleted");
    /// assert!(batch.get("A").is_none());
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Operation<'_>> {
        // Operations without a name are in this keyspace.
        let mine = self.keyspace;
        self.last_on(mine, key.as_ref())
    }

    /// As [`get`](Self::get), in the keyspace of this handle. Operations that name no keyspace
    /// count only if the batch was made for that keyspace.
    pub fn get_in(
        &self,
        keyspace: impl Into<KeyspaceRef>,
        key: impl AsRef<[u8]>,
    ) -> Option<Operation<'_>> {
        self.last_on(Some(keyspace.into()), key.as_ref())
    }

    fn last_on(&self, keyspace: Option<KeyspaceRef>, key: &[u8]) -> Option<Operation<'_>> {
        let on_it = |one: &Operation<'_>| one.covers(key) && one.keyspace() == keyspace;
        self.operations().filter(on_it).last()
    }

    /// Appends all operations of `other`, in order. Those that name no keyspace are in this batch's
    /// keyspace. Copies `other` once.
    ///
    /// # Examples
    /// ```
    /// # use sluicedb_storage::batch::WriteBatch;
    /// let (mut batch, mut more) = (WriteBatch::new(), WriteBatch::new());
    /// batch.put("a", "1");
    /// more.delete("a").put("b", "2");
    /// batch.append(&more);
    /// assert_eq!(batch.len(), 3);
    /// assert!(batch.get("a").is_some_and(|last| last.value().is_none()));
    /// ```
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.is_mixed |= other.is_mixed;
        if let (Some(mine), Some(theirs)) = (self.database, other.database) {
            self.is_mixed |= mine != theirs;
        }
        self.database = self.database.or(other.database);
        // A malformed operation makes `other` invalid, and this batch with it, even though the
        // operations behind it are not copied.
        self.shortest_key = self.shortest_key.into_iter().chain(other.shortest_key).min();
        self.longest_key = self.longest_key.max(other.longest_key);
        self.longest_value = self.longest_value.max(other.longest_value);
        let (mut points, mut ranges) = (other.points(), other.deleted.iter().peekable());
        loop {
            let is_next = |(at, ..): &&(usize, Option<KeyspaceId>, Span)| *at <= points.position();
            while let Some((_, named, span)) = ranges.next_if(is_next) {
                let keyspace = self.takes_over(other.whose(*named));
                self.delete_span(keyspace, span.clone());
            }
            let Some(NamedOperation { named, operation }) = points.decode() else { return self };
            let keyspace = self.takes_over(other.whose(named));
            put_operation(
                &mut self.encoded,
                keyspace,
                operation.kind,
                operation.key,
                operation.value,
            );
            self.note(operation.key.len(), operation.value.len());
        }
    }

    /// How an operation in this keyspace names it in this batch.
    fn takes_over(&mut self, keyspace: Option<KeyspaceRef>) -> Option<KeyspaceId> {
        match keyspace {
            Some(keyspace) => Some(self.name(keyspace)),
            None => self.unnamed(),
        }
    }

    /// The keyspace of an operation whose encoding names this keyspace, or none.
    pub(super) fn whose(&self, named: Option<KeyspaceId>) -> Option<KeyspaceRef> {
        let database = self.database?;
        match named {
            Some(id) => Some(KeyspaceRef { database, id }),
            // If the batch has its own keyspace, only the default keyspace is unnamed.
            None => self.keyspace.map(|_| KeyspaceRef { database, id: KeyspaceId::DEFAULT }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::KEY_BYTES_MAX;

    fn of(id: u32) -> KeyspaceRef {
        KeyspaceRef::new(1, KeyspaceId(id))
    }

    #[test]
    fn operations_are_read_as_they_were_added() {
        let mut batch = WriteBatch::new();
        batch.delete_range("x"..).put("a", "1").put_in(of(3), "b", "2").delete_in(of(0), "c");
        batch.delete_range_in(of(3), "d"..="e");
        let (first, third) = (Some(of(0)), Some(of(3)));
        let wanted = [
            Operation::DeleteRange { keyspace: None, from: b"x", to: None },
            Operation::Put { keyspace: None, key: b"a", value: b"1" },
            Operation::Put { keyspace: third, key: b"b", value: b"2" },
            Operation::Delete { keyspace: first, key: b"c" },
            Operation::DeleteRange { keyspace: third, from: b"d", to: Some(b"e\0") },
        ];
        assert_eq!(batch.operations().collect::<Vec<_>>(), wanted);
        // Written by a handle of another keyspace: unnamed operations are in that one.
        let within: Vec<_> = batch.within(of(7)).operations().map(|one| one.keyspace()).collect();
        assert_eq!(within, [Some(of(7)), Some(of(7)), third, first, third]);
    }

    #[test]
    fn the_last_operation_on_a_key_is_what_counts() {
        for home in [None, Some(of(0)), Some(of(4))] {
            let mut batch = home.map_or_else(WriteBatch::new, WriteBatch::new_in);
            batch.put("a", "1").put_in(of(9), "a", "other").put("b", "2").delete_prefix("b");
            batch.put("b1", "3").delete("c").put_in(of(9), "d", "other");
            let value = |key: &str| batch.get(key).map(|last| last.value().map(<[u8]>::to_vec));
            assert_eq!(value("a"), Some(Some(b"1".to_vec())));
            assert_eq!(value("b"), Some(None));
            assert_eq!(value("b1"), Some(Some(b"3".to_vec())));
            assert_eq!(value("c"), Some(None));
            assert_eq!(value("d"), None);
            let other = batch.get_in(of(9), "a").and_then(|last| last.value());
            assert_eq!(other, Some(&b"other"[..]));
        }
    }

    #[test]
    fn a_batch_to_which_one_that_is_refused_was_appended_is_refused() {
        for bad in [Vec::new(), vec![b'k'; KEY_BYTES_MAX + 1]] {
            for at in 0..3 {
                let mut more = WriteBatch::new();
                for n in 0..3 {
                    let key = if n == at { bad.clone() } else { vec![b'a' + n] };
                    more.put(key, "value");
                }
                more.delete_range("m"..);
                let mut batch = WriteBatch::new();
                batch.put("a", "1").append(&more);
                assert!(more.check(100).is_err());
                assert!(batch.check(100).is_err(), "{} bytes, at {at}", bad.len());
            }
        }
        let (mut batch, mut more) = (WriteBatch::new(), WriteBatch::new());
        more.put("k", vec![0; 101]);
        assert!(batch.append(&more).check(100).is_err());
    }

    #[test]
    fn what_is_appended_is_as_if_it_had_been_added_here() {
        for (mine, theirs) in [(0, 0), (0, 4), (4, 0), (4, 4), (4, 5)] {
            let home = |id| if id == 9 { WriteBatch::new() } else { WriteBatch::new_in(of(id)) };
            for (mine, theirs) in [(mine, theirs), (9, theirs), (mine, 9), (9, 9)] {
                let (mut batch, mut more) = (home(mine), home(theirs));
                batch.put("a", "1");
                more.put("b", "22")
                    .delete_range("x"..)
                    .put_in(of(0), "c", "3")
                    .delete_in(of(6), "d");
                more.delete_range_in(of(6), .."k");
                batch.append(&more);
                let of_mine = if mine == 9 { None } else { Some(of(mine)) };
                let of_theirs = if theirs == 9 { of_mine } else { Some(of(theirs)) };
                let whose: Vec<_> = batch.operations().map(|one| one.keyspace()).collect();
                let wanted = [of_mine, of_theirs, of_theirs, Some(of(0)), Some(of(6)), Some(of(6))];
                assert_eq!(whose, wanted, "{mine}, {theirs}");
                let within = batch.clone().within(of(7));
                let whose: Vec<_> = within.operations().map(|one| one.keyspace()).collect();
                let wanted = wanted.map(|keyspace| keyspace.or(Some(of(7))));
                assert_eq!(whose, wanted, "{mine}, {theirs}");
            }
        }
        let mut batch = WriteBatch::new();
        batch.put_in(of(1), "k", "v");
        let mut foreign = WriteBatch::new();
        foreign.put_in(KeyspaceRef::new(2, KeyspaceId(1)), "k", "v").put("", "v");
        batch.append(&foreign);
        assert!(batch.check(10).unwrap_err().contains("two databases"));
    }
}
