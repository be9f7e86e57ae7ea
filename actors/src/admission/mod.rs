//! Who may write now, and who waits: what each range may hold, what waiting costs, how near it is.

mod budget;
pub mod pressure;
pub mod waits;

pub use budget::RangeBudget;
