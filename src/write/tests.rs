//! What no caller can make the engine do: a rule of the log is broken under its seat.

use super::*;
use crate::{ErrorKind, HealthState, Outcome};
use futures::executor::block_on;
use sluicedb_storage::vfs::MemVfs;
use std::sync::Arc;

/// Planted: the log's turn runs outside of `catch_unwind` (the panic reaches the caller, and nobody
/// else learns of it).
#[test]
fn b14_a_panic_in_the_logs_turn_is_an_error_for_its_caller_and_stops_the_engine() {
    let vfs = Arc::new(MemVfs::new());
    let builder = Db::builder("/broken-log-turn").vfs(vfs);
    let db = block_on(builder.open()).expect("an empty disk");
    block_on(db.put("a", "1")).expect("nothing is broken yet");
    let mut batch = WriteBatch::new();
    batch.put("b", "2");
    let lies = db.engine().write_path().submit(batch.encoded(), 0, Durability::Buffered);
    let error = Error::from(lies.expect_err("it says that it has no operations"));
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Internal, Outcome::Unknown));
    let message = error.to_string();
    assert!(message.contains("wal writer") && message.contains("empty batches"), "{message}");
    assert!(matches!(db.health().state(), HealthState::Failed(_)));
    assert!(block_on(db.put("c", "3")).is_err());
    let read = block_on(db.get("a")).expect("reads go on");
    assert_eq!(read.as_deref(), Some(&b"1"[..]));
}
