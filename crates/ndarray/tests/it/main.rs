//! The integration tests of the CPU backend.

mod conformance;
