//! (module recover)
