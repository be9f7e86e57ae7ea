//! The log's keeper: keeps a spare segment ready and removes old ones.

mod run;
mod state;

pub use run::keep_loop;
