//! Work that may be done in any order, and at the same time.
//!
//! This crate starts no threads. Where several would help, it divides its work into pieces, and its
//! caller says what runs them.

use std::fmt::Debug;

/// A piece of work that needs no other piece. It may block on the disk.
pub type Piece<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs pieces of work.
pub trait SideBySide: Debug + Send + Sync {
    /// Runs all `pieces`, and returns when the last one has ended. The default runs one after the
    /// other on the caller's thread. If a piece panics, this panics.
    fn run(&self, pieces: Vec<Piece<'_>>) {
        for piece in pieces {
            piece();
        }
    }
}

/// Runs pieces one after the other.
#[derive(Clone, Copy, Debug)]
pub struct OneByOne;

impl SideBySide for OneByOne {}
