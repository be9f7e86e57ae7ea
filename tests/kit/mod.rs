//! What the test binaries share: seeded chance, a simulator for threads and time, the model of a
//! database, and options small enough that every structure is exercised.
//!
//! Each binary includes this directory as a module of its own and uses the part it needs.

#![allow(dead_code, reason = "every binary uses its own part of the kit")]

pub mod chance;
pub mod disk;
pub mod oracle;
pub mod settings;
pub mod simulator;
pub mod slow;
