//! (module view)
