//! Losses: a workgroup a row, then one that adds the rows up.

use defrost_tensor::KernelError;
use defrost_tensor::call::SoftmaxCrossEntropy;

use crate::WgpuKernels;
use crate::buffer::WgpuBuf;
use crate::queue::Words;
use crate::shader::Source;

/// Sums and largest values over a workgroup.
pub(crate) const TREES: &str = include_str!("../shaders/loss/tree.wgsl");

static CROSS_ENTROPY: Source = Source {
    name: "cross-entropy",
    parts: &[TREES, include_str!("../shaders/loss/cross_entropy.wgsl")],
    reads: 2,
    writes: 2,
};

impl WgpuKernels {
    pub(crate) fn cross_entropy_call(
        &self,
        call: SoftmaxCrossEntropy<&WgpuBuf, &mut WgpuBuf>,
    ) -> Result<(), KernelError> {
        let SoftmaxCrossEntropy { n, classes, logits, targets, stats, grad } = call;
        stats.half = false;
        let grad = grad.map(|g| {
            g.half = false;
            &*g
        });
        let len = n * classes;
        self.with_workspace(0, 2 * n, |workspace| {
            let rows = workspace.span(2 * n);
            let words = Words::new().all(&[n, classes, usize::from(grad.is_some())]);
            let reads = [Some(logits.span(len)), Some(targets.span(len))];
            let writes = [Some(rows), grad.map(|g| g.span(len))];
            self.trees(&CROSS_ENTROPY, 1, words, (&reads, &writes), n)?;
            self.total(rows, 2, n, false, stats.span(2))
        })
    }
}
