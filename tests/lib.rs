//! Tests over the facade; see `tests/it`.
