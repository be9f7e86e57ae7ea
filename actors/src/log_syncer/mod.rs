//! The log's syncer: writes and syncs what was appended, and answers those who wait for that.

mod run;

pub use run::sync_loop;
