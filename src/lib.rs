//! SluiceDB: an embedded, durable, ordered key-value engine for async Rust services.
