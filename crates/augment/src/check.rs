//! The ranges of all parameters.

use crate::{Error, Fill, Op};

/// Reports the first parameter of one operation that is out of its range.
pub(crate) struct Check {
    pub(crate) index: usize,
    pub(crate) op: &'static str,
}

impl Check {
    pub(crate) fn op(&self, op: &Op) -> Result<(), Error> {
        match op {
            Op::RandomResizedCrop(o) => {
                self.ordered("scale", o.scale, 1.0, "[least, greatest] with 0 < least <= greatest <= 1")?;
                self.ordered("ratio", o.ratio, f64::INFINITY, "[least, greatest] with 0 < least <= greatest")
            }
            Op::Resize(o) => {
                self.holds("crop", o.crop, o.crop > 0.0 && o.crop <= 1.0, "above 0 and at most 1")?;
                self.fill(&o.fill)
            }
            Op::FlipHorizontal(o) | Op::FlipVertical(o) => self.chance(o.p),
            Op::Rotate(o) => {
                self.chance(o.p)?;
                self.holds("degrees", o.degrees, (0.0..=180.0).contains(&o.degrees), "0 to 180")?;
                self.fill(&o.fill)
            }
            Op::ColorJitter(o) => {
                self.chance(o.p)?;
                for (name, v) in
                    [("brightness", o.brightness), ("contrast", o.contrast), ("saturation", o.saturation)]
                {
                    self.not_negative(name, v)?;
                }
                self.holds("hue", o.hue, (0.0..=0.5).contains(&o.hue), "0 to 0.5")
            }
        }
    }

    fn holds(
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

    fn chance(&self, p: f64) -> Result<(), Error> {
        self.holds("p", p, (0.0..=1.0).contains(&p), "a probability, 0 to 1")
    }

    fn not_negative(&self, name: &'static str, v: f64) -> Result<(), Error> {
        self.holds(name, v, v >= 0.0 && v.is_finite(), "0 or more")
    }

    fn ordered(
        &self,
        name: &'static str,
        [low, high]: [f64; 2],
        most: f64,
        rule: &'static str,
    ) -> Result<(), Error> {
        self.holds(name, [low, high], low > 0.0 && low <= high && high <= most && high.is_finite(), rule)
    }

    fn fill(&self, fill: &Fill) -> Result<(), Error> {
        let ok = !matches!(fill, Fill::Constant(values) if values.is_empty() || values.len() > 4);
        self.holds(
            "fill",
            fill,
            ok,
            "\"reflect\", \"edge\" or { constant = [value, ...] } with 1 to 4 values",
        )
    }
}
