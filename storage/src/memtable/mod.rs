//! (module memtable)
