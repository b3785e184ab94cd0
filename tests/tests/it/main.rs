//! One binary for all tests over the facade.
