//! Caller-runs actors: the loom-checked primitives. Nothing here names tokio, an actor or a file.
