//! Strips that take no more writes, and which of them to compact.
//!
//! A large buffer is not compacted as a whole: what was overwritten lies where hot keys were
//! written, and copying the rest of the buffer for it would be in vain. So the strip that takes the
//! writes is set aside now and then, and a compaction takes those strips of which the most is dead;
//! what it leaves alive is cold and lies together from then on. (The cleaning of log-structured
//! file systems: Rosenblum and Ousterhout, 1992. With zipf 0.99 a third of the bytes is copied for
//! the same room.)
//!
//! Guarantees: nothing of a strip moves in here; sums are kept, so nothing is counted over all
//! strips but for a pick.

use super::chunk::Chunk;
use super::pool::ChunkSource;
use super::strip::{Census, Strip};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// By id.
    strips: Vec<Strip>,
    /// What lies in all of them.
    census: Census,
    allocated_bytes: usize,
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.strips.is_empty()
    }

    pub(super) fn census(&self) -> Census {
        self.census
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    /// Takes a strip in.
    pub(super) fn add(&mut self, strip: Strip) {
        self.census = self.census.plus(strip.census);
        self.allocated_bytes += strip.allocated_bytes();
        let at = self.strips.partition_point(|other| other.id() < strip.id());
        self.strips.insert(at, strip);
    }

    /// A live entry of this strip, which is in here, has died.
    #[inline]
    pub(super) fn mark_dead(&mut self, strip: u32, bytes: u64) {
        let at = self.strips.binary_search_by_key(&strip, Strip::id);
        let at = at.expect("an entry is in a strip that its buffer has");
        self.strips[at].census.mark_dead(bytes);
        self.census.mark_dead(bytes);
    }

    /// Takes the strip with this id out.
    pub(super) fn take(&mut self, id: u32) -> Option<Strip> {
        let at = self.strips.binary_search_by_key(&id, Strip::id).ok()?;
        let strip = self.strips.remove(at);
        self.census = self.census.minus(strip.census);
        self.allocated_bytes -= strip.allocated_bytes();
        Some(strip)
    }

    /// Takes out the strips of which the largest part is dead, until about `dead_bytes` are; joined
    /// to one. Without `kept`. `None`: not even half of that is to be had from strips of which at
    /// least `dead_ratio` is dead.
    pub(super) fn pick(
        &mut self,
        dead_bytes: u64,
        dead_ratio: f64,
        kept: Option<u32>,
        source: &ChunkSource,
    ) -> Option<Strip> {
        let dead_part = |census: Census| census.dead_bytes as f64 / census.total().max(1) as f64;
        let candidates = self.strips.iter().filter(|strip| Some(strip.id()) != kept);
        let mut candidates: Vec<_> = candidates
            .map(|strip| (dead_part(strip.census), strip.census.dead_bytes, strip.id()))
            .filter(|(part, ..)| *part >= dead_ratio)
            .collect();
        candidates.sort_unstable_by(|left, right| right.0.total_cmp(&left.0));
        let mut found = 0;
        let mut picked = Vec::new();
        for (_, dead, id) in candidates {
            if found >= dead_bytes {
                break;
            }
            found += dead;
            picked.push(id);
        }
        if found < dead_bytes / 2 || picked.is_empty() {
            return None;
        }
        // In the order of their age, as they would be in one strip.
        picked.sort_unstable();
        let picked: Vec<_> = picked.into_iter().filter_map(|id| self.take(id)).collect();
        join_all(picked, source)
    }

    /// Takes all of them out, joined to one.
    pub(super) fn take_all(&mut self, source: &ChunkSource) -> Option<Strip> {
        let strips = std::mem::take(self).strips;
        join_all(strips, source)
    }

    /// Gives the chunks away.
    pub(super) fn take_chunks(&mut self) -> impl Iterator<Item = Chunk> {
        std::mem::take(self).strips.into_iter().flat_map(Strip::into_chunks)
    }

    /// Walks every header and compares with the sums, as `Strip::check`.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<Vec<(super::header::State, usize)>, String> {
        let mut found = Vec::new();
        let mut census = Census::default();
        for strip in &self.strips {
            found.extend(strip.check()?);
            census = census.plus(strip.census);
        }
        let allocated = self.strips.iter().map(Strip::allocated_bytes).sum::<usize>();
        if (census, allocated) != (self.census, self.allocated_bytes) {
            return Err(format!("{census:?} in {allocated}, not {self:?}"));
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.strips.len()
    }
}

/// The strips behind each other, with fillers at the seams.
fn join_all(strips: impl IntoIterator<Item = Strip>, source: &ChunkSource) -> Option<Strip> {
    strips.into_iter().reduce(|mut all, next| {
        all.pad(source);
        all.join(next.starting_at(all.end()));
        all
    })
}
