//! (module compact)
