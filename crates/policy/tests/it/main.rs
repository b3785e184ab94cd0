//! The crate as one who depends on it sees it.

mod recipes;
