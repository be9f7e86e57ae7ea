//! (module manifest)
