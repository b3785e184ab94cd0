//! Reports of parameters that are out of their ranges.

use crate::{Error, Fill};

/// The operation that is being checked; every method reports the first parameter out of its range.
pub(crate) struct Check {
    pub(crate) index: usize,
    pub(crate) op: &'static str,
}

impl Check {
    pub(crate) fn holds(
        &self,
        parameter: &'static str,
        value: impl std::fmt::Debug,
        ok: bool,
        rule: &'static str,
    ) -> Result<(), Error> {
        if ok {
            return Ok(());
        }
        Err(Error::Parameter { index: self.index, op: self.op, parameter, value: format!("{value:?}"), rule })
    }

    pub(crate) fn chance(&self, p: f64) -> Result<(), Error> {
        self.holds("p", p, (0.0..=1.0).contains(&p), "a probability, 0 to 1")
    }

    pub(crate) fn not_negative(&self, name: &'static str, v: f64) -> Result<(), Error> {
        self.holds(name, v, v >= 0.0 && v.is_finite(), "0 or more")
    }

    pub(crate) fn angle(
        &self,
        name: &'static str,
        v: f64,
        most: f64,
        rule: &'static str,
    ) -> Result<(), Error> {
        self.holds(name, v, (0.0..=most).contains(&v), rule)
    }

    /// Parts of an area, in (0, 1].
    pub(crate) fn parts(&self, name: &'static str, [low, high]: [f64; 2]) -> Result<(), Error> {
        let ok = low > 0.0 && low <= high && high <= 1.0;
        self.holds(name, [low, high], ok, "[least, greatest] with 0 < least <= greatest <= 1")
    }

    /// Factors or ratios above 0.
    pub(crate) fn ratios(&self, name: &'static str, [low, high]: [f64; 2]) -> Result<(), Error> {
        let ok = low > 0.0 && low <= high && high.is_finite();
        self.holds(name, [low, high], ok, "[least, greatest] with 0 < least <= greatest")
    }

    pub(crate) fn fill(&self, fill: &Fill) -> Result<(), Error> {
        let ok = !matches!(fill, Fill::Constant(values) if values.is_empty() || values.len() > 4);
        self.holds(
            "fill",
            fill,
            ok,
            "\"reflect\", \"edge\" or { constant = [value, ...] } with 1 to 4 values",
        )
    }
}
