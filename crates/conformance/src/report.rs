//! What a run of the suite found.

use std::fmt;

/// The outcome of every case, in the order they were run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The backend's name for its device.
    pub device: String,
    /// One a case.
    pub outcomes: Vec<Outcome>,
    /// Patterns of expectations that matched no case: they outlived what they excused.
    pub stale: Vec<String>,
}

/// What became of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case's name.
    pub case: String,
    /// The largest error of its results as a share of what is allowed; 0 where nothing is compared.
    pub used: f64,
    /// A hash of the bits of everything that it wrote: equal for backends that agree to the bit. 0 where it did not run.
    pub digest: u64,
    /// Why it was not run, where the backend declares that it cannot.
    pub unsupported: Option<String>,
    /// What went wrong; empty where it passed.
    pub failures: Vec<Failure>,
}

/// What a case may do wrong.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// A result is too far from the oracle's.
    Value {
        /// Which result.
        what: String,
        /// `max |got - want| / max |want|`.
        max: f64,
        /// `‖got - want‖ / ‖want‖`.
        l2: f64,
        /// The most that either may be.
        tolerance: f64,
        /// The worst element, in the layout's host order.
        at: usize,
        /// What the backend says of it.
        got: f32,
        /// What the oracle says of it.
        want: f64,
    },
    /// An operand that the call only reads has another value afterwards.
    ReadChanged {
        /// Which of the operands that are read, in the fields' order.
        read: usize,
    },
    /// The same call on the same numbers gave other bits the second time.
    NotRepeatable {
        /// Which of the operands that are written, in the fields' order.
        write: usize,
    },
    /// The same call with operands in longer buffers, as values that share a slot have them, failed or gave other bits.
    LongerBuffer {
        /// What happened.
        what: String,
    },
    /// A kernel or the session above it returned an error.
    Error(String),
    /// It panicked.
    Panic(String),
    /// `supports` says no, and no expectation says why.
    Undeclared,
    /// An expectation says that the backend cannot, `supports` says that it can.
    Supported {
        /// The expectation's reason.
        reason: String,
    },
}

impl Report {
    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|o| !o.failures.is_empty())
    }

    /// Whether everything is as it should be.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none() && self.stale.is_empty()
    }

    /// The names of the cases whose results differ in a bit from another run's: of another number of threads, say.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let differ = |(a, b): &(&Outcome, &Outcome)| a.case != b.case || a.digest != b.digest;
        let pairs = self.outcomes.iter().zip(&other.outcomes);
        pairs.filter(differ).map(|(a, _)| a.case.as_str()).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in self.failed() {
            for failure in &outcome.failures {
                writeln!(f, "FAILED {}: {failure}", outcome.case)?;
            }
        }
        for pattern in &self.stale {
            writeln!(f, "STALE  the expectation {pattern:?} matches no case")?;
        }
        let unsupported = self.outcomes.iter().filter(|o| o.unsupported.is_some()).count();
        let failed = self.failed().count();
        write!(
            f,
            "{}: {} passed, {failed} failed, {unsupported} declared unsupported",
            self.device,
            self.outcomes.len() - failed - unsupported,
        )?;
        match self.outcomes.iter().max_by(|a, b| a.used.total_cmp(&b.used)) {
            Some(o) if o.used > 0.0 => {
                write!(f, "; the largest error is {:.2} of what is allowed, in {}", o.used, o.case)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { what, max, l2, tolerance, at, got, want } => write!(
                f,
                "{what} is off by {max:.2e} (max) and {l2:.2e} (L2), allowed is {tolerance:.1e}; \
                 worst at [{at}]: got {got}, want {want}"
            ),
            Self::ReadChanged { read } => write!(f, "operand {read} is only read, but changed"),
            Self::NotRepeatable { write } => write!(f, "result {write} has other bits the second time"),
            Self::LongerBuffer { what } => write!(f, "in buffers longer than needed: {what}"),
            Self::Error(error) => write!(f, "{error}"),
            Self::Panic(message) => write!(f, "panicked: {message}"),
            Self::Undeclared => {
                write!(f, "supports() says no: declare it in an expectation, with the reason")
            }
            Self::Supported { reason } => {
                write!(f, "declared unsupported ({reason}), but supports() says yes: remove the expectation")
            }
        }
    }
}
