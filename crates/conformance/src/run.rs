//! Runs cases on a backend and on the oracle, and compares.

use std::panic::{AssertUnwindSafe, catch_unwind};

use defrost_tensor::{Call, KernelError, Kernels, Layout, PixelScale, Shape4};

use crate::det::fnv1a;
use crate::{Case, Failure, Operand, Oracle, Outcome, Report, cases, det};

/// Something that a backend cannot do, and why. Its `supports` must say so too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// What the names of the cases begin with.
    pub prefix: &'static str,
    /// Why, with a link to the issue if there is one.
    pub reason: &'static str,
}

/// Runs the whole suite. Errors may be `scale` times what the cases allow: 1 for a CPU, 10 for a GPU.
pub fn run_all<K: Kernels>(kernels: &K, scale: f64, expect: &[Expectation]) -> Report {
    let mut report = run_cases(kernels, &cases(), scale, expect);
    report.outcomes.extend(memory(kernels));
    report
}

/// Runs the given cases.
pub fn run_cases<K: Kernels>(kernels: &K, cases: &[Case], scale: f64, expect: &[Expectation]) -> Report {
    let outcomes = cases.iter().map(|case| outcome(kernels, case, scale, expect)).collect();
    let matches_none = |e: &&Expectation| !cases.iter().any(|case| case.name.starts_with(e.prefix));
    let stale = expect.iter().filter(matches_none).map(|e| e.prefix.to_string()).collect();
    Report { device: kernels.device(), outcomes, stale }
}

fn outcome<K: Kernels>(kernels: &K, case: &Case, scale: f64, expect: &[Expectation]) -> Outcome {
    let mut outcome = Outcome::new(case.name.clone());
    let supported = kernels.supports(&case.layouts());
    match expect.iter().find(|e| case.name.starts_with(e.prefix)) {
        Some(e) if supported => outcome.failures.push(Failure::Supported { reason: e.reason.into() }),
        Some(e) => outcome.unsupported = Some(e.reason.into()),
        None if !supported => outcome.failures.push(Failure::Undeclared),
        None => match caught(|| check(kernels, case, scale, &mut outcome)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => outcome.failures.push(Failure::Error(error.to_string())),
            Err(message) => outcome.failures.push(Failure::Panic(message)),
        },
    }
    outcome
}

/// Runs `case` three times on `kernels` and once on the oracle.
fn check<K: Kernels>(kernels: &K, case: &Case, scale: f64, outcome: &mut Outcome) -> Result<(), KernelError> {
    let numbers = case.numbers();
    let (_, want) =
        execute(&Oracle, case, &numbers, false, |layout, buf| Ok(Oracle.download_f64(layout, buf)))?;
    let run = |longer| execute(kernels, case, &numbers, longer, |layout, buf| download(kernels, layout, buf));
    let (reads, got) = run(false)?;
    let (_, again) = run(false)?;

    let changed = (0..reads.len()).filter(|&i| bits(&reads[i]) != bits(&numbers.0[i]));
    outcome.failures.extend(changed.map(|read| Failure::ReadChanged { read }));
    let unlike = (0..got.len()).filter(|&i| bits(&got[i]) != bits(&again[i]));
    outcome.failures.extend(unlike.map(|write| Failure::NotRepeatable { write }));
    let longer = match caught(|| run(true)) {
        Ok(Ok((_, longer))) => (0..got.len())
            .find(|&i| bits(&got[i]) != bits(&longer[i]))
            .map(|i| format!("result {i} has other bits")),
        Ok(Err(error)) => Some(error.to_string()),
        Err(message) => Some(format!("panicked: {message}")),
    };
    outcome.failures.extend(longer.map(|what| Failure::LongerBuffer { what }));
    for (write, (got, want)) in got.iter().zip(&want).enumerate() {
        outcome.compare(&format!("result {write}"), got, want, case.tolerance * scale);
    }
    Ok(())
}

/// The numbers in the operands that are read and in those that are written.
type Operands<T> = (Vec<Vec<T>>, Vec<Vec<T>>);

/// Runs a case on `kernels`; returns what is in the operands that are read and in those that are written afterwards.
///
/// With `longer`, what may be transient lies in plain buffers that are longer than it, full of NaN: values that live at
/// different times share such buffers.
fn execute<K: Kernels, T>(
    kernels: &K,
    case: &Case,
    (reads, writes): &Operands<f32>,
    longer: bool,
    download: impl Fn(Layout, &K::Buf) -> Result<Vec<T>, KernelError>,
) -> Result<Operands<T>, KernelError> {
    let upload = |operands: &[Operand], numbers: &[Vec<f32>]| {
        let upload = |(operand, numbers): (&Operand, &Vec<f32>)| {
            let layout = match operand.layout {
                layout @ Layout::ConvWeight(_) => layout,
                layout if longer => Layout::Plain(layout.len() + 37),
                layout => layout,
            };
            let mut buf = kernels.alloc(layout)?;
            kernels.fill(layout.len(), f32::NAN, &mut buf)?;
            kernels.upload(operand.layout, numbers, &mut buf)?;
            Ok(buf)
        };
        operands.iter().zip(numbers).map(upload).collect::<Result<Vec<_>, KernelError>>()
    };
    let read_operands = case.call.reads();
    let write_operands = case.call.writes();
    let read_bufs = upload(&read_operands, reads)?;
    let mut write_bufs = upload(&write_operands, writes)?;
    bind(case.call.clone(), &read_bufs, &mut write_bufs).run(kernels)?;
    kernels.synchronize()?;
    let fetch = |operands: &[Operand], bufs: &[K::Buf]| {
        operands.iter().zip(bufs).map(|(o, buf)| download(o.layout, buf)).collect::<Result<Vec<_>, _>>()
    };
    Ok((fetch(&read_operands, &read_bufs)?, fetch(&write_operands, &write_bufs)?))
}

/// The call over buffers, which lie in the operands' order.
pub(crate) fn bind<'a, B, R, W>(
    call: Call<R, W>,
    reads: &'a [B],
    writes: &'a mut [B],
) -> Call<&'a B, &'a mut B> {
    let (mut reads, mut writes) = (reads.iter(), writes.iter_mut());
    let enough = "one buffer an operand";
    call.map(&mut |_| reads.next().expect(enough), &mut |_| writes.next().expect(enough))
}

/// What is not a call: allocation, upload, download, fill, pictures.
fn memory<K: Kernels>(kernels: &K) -> Vec<Outcome> {
    let shape = Shape4::new(2, 19, 3, 5);
    let layouts = [
        ("activation", Layout::Activation(shape)),
        ("vector", Layout::Activation(Shape4::vector(3, 257))),
        ("conv weight", Layout::ConvWeight([33, 19, 3, 5])),
        ("depthwise weight", Layout::ConvWeight([19, 1, 3, 3])),
        ("pointwise weight", Layout::ConvWeight([10, 33, 1, 1])),
        ("plain", Layout::Plain(1003)),
    ];
    let mut outcomes = Vec::new();
    let mut compare = |case: String, results: Result<(Vec<f32>, Vec<f64>, f64), KernelError>| {
        let mut outcome = Outcome::new(case);
        match results {
            Err(error) => outcome.failures.push(Failure::Error(error.to_string())),
            Ok((got, want, tolerance)) => outcome.compare("what is read back", &got, &want, tolerance),
        }
        outcomes.push(outcome);
    };
    for (what, layout) in layouts {
        let fresh = kernels.alloc(layout).and_then(|buf| download(kernels, layout, &buf));
        compare(format!("memory/alloc {what}"), fresh.map(|got| (got, vec![0.0; layout.len()], 0.0)));

        let host = det(what, [layout.len()], 0.0, 1.0).into_data();
        let back = kernels.alloc(layout).and_then(|mut buf| {
            kernels.upload(layout, &host, &mut buf)?;
            let got = download(kernels, layout, &buf)?;
            Ok((got, host.iter().map(|&v| v.into()).collect(), 0.0))
        });
        compare(format!("memory/upload {what}"), back);

        let filled = kernels.alloc(layout).and_then(|mut buf| {
            kernels.upload(layout, &host, &mut buf)?;
            kernels.fill(layout.len(), 0.25, &mut buf)?;
            Ok((download(kernels, layout, &buf)?, vec![0.25; layout.len()], 0.0))
        });
        compare(format!("memory/fill {what}"), filled);
    }
    let partly = kernels.alloc(Layout::Plain(100)).and_then(|mut buf| {
        kernels.fill(37, 3.0, &mut buf)?;
        let want = (0..100).map(|i| if i < 37 { 3.0 } else { 0.0 }).collect();
        Ok((download(kernels, Layout::Plain(100), &buf)?, want, 0.0))
    });
    compare("memory/fill a part".into(), partly);

    for (channels, reversed) in [(3, false), (3, true), (1, false)] {
        let shape = Shape4::new(2, channels, 7, 5);
        let pixels: Vec<u8> = (0..shape.len()).map(|i| (i * 37 % 256) as u8).collect();
        let scale = PixelScale {
            scale: (0..channels).map(|c| 0.017 + 0.001 * c as f32).collect(),
            shift: (0..channels).map(|c| -2.1 + 0.1 * c as f32).collect(),
            reversed,
        };
        let layout = Layout::Activation(shape);
        let got = kernels.alloc(layout).and_then(|mut buf| {
            kernels.upload_pixels(shape, &pixels, &scale, &mut buf)?;
            let mut want = Oracle.alloc(layout)?;
            Oracle.upload_pixels(shape, &pixels, &scale, &mut want)?;
            Ok((download(kernels, layout, &buf)?, want, 1e-6))
        });
        let order = if reversed { "reversed" } else { "as they are" };
        compare(format!("memory/pixels {channels} channels {order}"), got);
    }
    outcomes
}

fn download<K: Kernels>(kernels: &K, layout: Layout, buf: &K::Buf) -> Result<Vec<f32>, KernelError> {
    let mut host = vec![f32::NAN; layout.len()];
    kernels.download(layout, buf, &mut host)?;
    Ok(host)
}

impl Outcome {
    pub(crate) fn new(case: String) -> Self {
        Self { case, used: 0.0, digest: 0, unsupported: None, failures: Vec::new() }
    }

    /// Takes in one result and what it should be.
    pub(crate) fn compare(&mut self, what: &str, got: &[f32], want: &[f64], tolerance: f64) {
        self.compare_to(what, got, want, tolerance, 0.0);
    }

    /// The same for a result whose size counts as `floor` at least.
    pub(crate) fn compare_to(&mut self, what: &str, got: &[f32], want: &[f64], tolerance: f64, floor: f64) {
        let Deviation { max, l2, at } = deviation(got, want, floor);
        if max.max(l2) > tolerance {
            let (what, got, want) = (what.to_string(), got[at], want[at]);
            self.failures.push(Failure::Value { what, max, l2, tolerance, at, got, want });
        }
        if tolerance > 0.0 {
            self.used = self.used.max(max.max(l2) / tolerance);
        }
        let bytes = bits(got).into_iter().flat_map(u32::to_le_bytes);
        self.digest = fnv1a(&self.digest.to_le_bytes().into_iter().chain(bytes).collect::<Vec<_>>());
    }
}

/// How far results are from what is wanted.
struct Deviation {
    /// `max |got - want| / max |want|`.
    max: f64,
    /// `‖got - want‖ / ‖want‖`.
    l2: f64,
    /// The worst element.
    at: usize,
}

/// Compares results. Where the wanted value is not finite, the result must be the same; one that is not and should be
/// is infinitely far off. Where all that is wanted is 0, errors are absolute. What is wanted counts as `floor` at least.
fn deviation(got: &[f32], want: &[f64], floor: f64) -> Deviation {
    let (mut max, mut at) = (0.0, 0);
    let (mut error, mut norm, mut largest) = (0.0, floor * floor, floor);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got);
        let same = got == want || (got.is_nan() && want.is_nan());
        let off = if same { 0.0 } else { (got - want).abs() };
        let off = if off.is_nan() { f64::INFINITY } else { off };
        if off > max {
            (max, at) = (off, i);
        }
        error += off * off;
        if want.is_finite() {
            norm += want * want;
            largest = largest.max(want.abs());
        }
    }
    // f32 has no numbers that small.
    if largest > 1e-37 {
        Deviation { max: max / largest, l2: (error / norm).sqrt(), at }
    } else {
        Deviation { max, l2: error.sqrt(), at }
    }
}

/// The bits of numbers, all NaN alike.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
}

pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let message = payload.downcast_ref::<String>().cloned();
        let message = message.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
        message.unwrap_or_else(|| "without a message".into())
    })
}
