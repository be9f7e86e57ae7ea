//! (module version)
