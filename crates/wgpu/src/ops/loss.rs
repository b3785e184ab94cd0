//! Losses: a workgroup a row, then one that adds the rows up.

use defrost_tensor::call::{ElementwiseLoss, SoftmaxCrossEntropy};
use defrost_tensor::{ElementLoss, KernelError, Kernels};

use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::Source;

/// Sums and largest values over a workgroup.
pub(crate) const TREES: &str = include_str!("../shaders/loss/tree.wgsl");

/// Logarithms of what is near 1.
const NEAR_ONE: &str = include_str!("../shaders/loss/near_one.wgsl");

static CROSS_ENTROPY: Source = Source {
    name: "cross-entropy",
    parts: &[TREES, NEAR_ONE, include_str!("../shaders/loss/cross_entropy.wgsl")],
    reads: 2,
    writes: 2,
};
static ELEMENTWISE: Source = Source {
    name: "elementwise loss",
    parts: &[TREES, NEAR_ONE, include_str!("../shaders/loss/elementwise.wgsl")],
    reads: 3,
    writes: 2,
};

/// The number that shaders know a loss by, and its parameter.
fn element_loss(loss: ElementLoss) -> Option<(usize, f32)> {
    match loss {
        ElementLoss::BinaryCrossEntropy => Some((0, 0.0)),
        ElementLoss::Squared => Some((1, 0.0)),
        ElementLoss::Huber { delta } => Some((2, delta)),
        _ => None,
    }
}

impl WgpuKernels {
    pub(crate) fn cross_entropy_call(
        &self,
        call: SoftmaxCrossEntropy<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let SoftmaxCrossEntropy { n, classes, gamma, logits, targets, stats, grad } = call;
        stats.half = false;
        let grad = grad.map(|g| {
            g.half = false;
            &*g
        });
        let len = n * classes;
        self.with_workspace(0, 2 * n, |workspace| {
            let rows = workspace.span(2 * n);
            let words = Words::new().all(&[n, classes, usize::from(grad.is_some())]).f(gamma);
            let reads = [Some(logits.span(len)), Some(targets.span(len))];
            let writes = [Some(rows), grad.map(|g| g.span(len))];
            self.trees(&CROSS_ENTROPY, 1, words, (&reads, &writes), n)?;
            self.total(rows, 2, n, false, stats.span(2))
        })
    }

    pub(crate) fn elementwise_loss_call(
        &self,
        call: ElementwiseLoss<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let ElementwiseLoss { n, classes, loss, x, targets, weights, stats, grad } = call;
        let Some((which, delta)) = element_loss(loss) else {
            return Err(KernelError::Unsupported {
                device: self.device(),
                what: format!("the loss {loss:?}"),
            });
        };
        stats.half = false;
        let grad = grad.map(|g| {
            g.half = false;
            &*g
        });
        let len = n * classes;
        self.with_workspace(0, 2 * n, |workspace| {
            let rows = workspace.span(2 * n);
            let words = Words::new().all(&[n, classes, usize::from(grad.is_some()), which]).f(delta);
            let reads = [x, targets, weights].map(|b| Some(b.span(len)));
            let writes = [Some(rows), grad.map(|g| g.span(len))];
            self.trees(&ELEMENTWISE, 1, words, (&reads, &writes), n)?;
            self.total(rows, 2, n, false, stats.span(2))
        })
    }
}
