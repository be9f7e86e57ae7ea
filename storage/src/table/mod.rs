//! (module table)
