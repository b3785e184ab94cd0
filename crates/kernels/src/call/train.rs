//! What treats each element alone, sums, losses and optimizers.

use defrost_tensor::Shape4;
use defrost_tensor::call::*;

use super::{NoRoom, SliceKernels, read, write};
use crate::elementwise::{self, Channels};
use crate::{layout, loss, optim, reduce};

impl SliceKernels {
    pub(super) fn activate(&self, call: Activate<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        elementwise::activate(
            &self.threads,
            call.activation,
            read(call.x, call.len),
            write(call.out, call.len),
        );
        Ok(())
    }

    pub(super) fn activate_grad(&self, call: ActivateGrad<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let (out, grad_out) = (read(call.out, call.len), read(call.grad_out, call.len));
        let grad_in = write(call.grad_in, call.len);
        elementwise::activate_grad(&self.threads, call.activation, out, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    pub(super) fn add(&self, call: Add<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let (a, b) = (read(call.a, call.len), read(call.b, call.len));
        elementwise::add(&self.threads, call.activation, a, b, write(call.out, call.len));
        Ok(())
    }

    pub(super) fn copy(&self, call: Copy<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        elementwise::copy(&self.threads, read(call.x, call.len), call.accumulate, write(call.out, call.len));
        Ok(())
    }

    pub(super) fn channel_sum(&self, call: ChannelSum<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let (rows, c) = (call.shape.rows(), call.shape.c);
        let mut workspace = self.workspace(reduce::channel_sum_workspace(rows, c))?;
        let (x, sum) = (read(call.x, call.shape.len()), write(call.sum, c));
        reduce::channel_sum(&self.threads, x, rows, call.accumulate, sum, &mut workspace);
        Ok(())
    }

    pub(super) fn flatten(&self, call: Flatten<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let len = call.input.len();
        layout::nhwc_to_nchw(&self.threads, call.input, read(call.x, len), write(call.out, len));
        Ok(())
    }

    pub(super) fn unflatten(&self, call: Unflatten<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let len = call.input.len();
        let (x, out) = (read(call.x, len), write(call.out, len));
        layout::nchw_to_nhwc(&self.threads, call.input, x, call.accumulate, out);
        Ok(())
    }

    pub(super) fn copy_channels(&self, call: CopyChannels<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let CopyChannels { input, output, from, to, channels, accumulate, .. } = call;
        let at = Channels { source: [input.c, from], target: [output.c, to], count: channels };
        let (x, out) = (read(call.x, input.len()), write(call.out, output.len()));
        elementwise::copy_channels(&self.threads, at, x, accumulate, out);
        Ok(())
    }

    pub(super) fn dropout(&self, call: Dropout<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let Shape4 { n, .. } = call.shape;
        let len = call.shape.len();
        let dropout = elementwise::Dropout { rate: call.rate, layer: call.layer };
        let (x, keys) = (read(call.x, len), read(call.keys, 2 * n));
        elementwise::dropout(dropout, call.shape.c, x, keys, call.accumulate, write(call.out, len));
        Ok(())
    }

    pub(super) fn softmax_cross_entropy(
        &self,
        call: SoftmaxCrossEntropy<&[f32], &mut [f32]>,
    ) -> Result<(), NoRoom> {
        let len = call.n * call.classes;
        let (logits, targets) = (read(call.logits, len), read(call.targets, len));
        let grad = call.grad.map(|b| write(b, len));
        let stats = loss::softmax_cross_entropy(call.classes, call.gamma, logits, targets, grad);
        write(call.stats, 2).copy_from_slice(&[stats.loss as f32, stats.hits as f32]);
        Ok(())
    }

    pub(super) fn elementwise_loss(&self, call: ElementwiseLoss<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let len = call.n * call.classes;
        let (x, targets, weights) = (read(call.x, len), read(call.targets, len), read(call.weights, len));
        let grad = call.grad.map(|b| write(b, len));
        let stats = loss::elementwise(call.loss, call.classes, x, targets, weights, grad);
        write(call.stats, 2).copy_from_slice(&[stats.loss as f32, stats.hits as f32]);
        Ok(())
    }

    pub(super) fn sgd(&self, call: Sgd<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let Sgd { len, lr, momentum, weight_decay, nesterov, .. } = call;
        let step = optim::Sgd { lr, momentum, weight_decay, nesterov };
        let velocity = call.velocity.map(|b| write(b, len));
        optim::sgd(&self.threads, step, read(call.grad, len), write(call.param, len), velocity);
        Ok(())
    }

    pub(super) fn adam(&self, call: Adam<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let Adam { len, lr, beta1, beta2, eps, weight_decay, decoupled, step, .. } = call;
        let step = optim::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step };
        let (first, second) = (write(call.first, len), write(call.second, len));
        optim::adam(&self.threads, step, read(call.grad, len), write(call.param, len), first, second);
        Ok(())
    }

    pub(super) fn rms_prop(&self, call: RmsProp<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let RmsProp { len, lr, alpha, eps, momentum, weight_decay, .. } = call;
        let step = optim::RmsProp { lr, alpha, eps, momentum, weight_decay };
        let (grad, param, square) = (read(call.grad, len), write(call.param, len), write(call.square, len));
        let [velocity, mean] = [call.velocity, call.mean].map(|b| b.map(|b| write(b, len)));
        optim::rms_prop(&self.threads, step, grad, param, square, velocity, mean);
        Ok(())
    }

    pub(super) fn lamb(&self, call: Lamb<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let Lamb { len, lr, beta1, beta2, eps, weight_decay, step, .. } = call;
        let step = optim::Lamb { lr, beta1, beta2, eps, weight_decay, step };
        let mut workspace = self.workspace(optim::lamb_workspace(len))?;
        let (grad, param) = (read(call.grad, len), write(call.param, len));
        let (first, second) = (write(call.first, len), write(call.second, len));
        let squares = optim::lamb(&self.threads, step, grad, param, first, second, &mut workspace);
        write(call.squares, 2).copy_from_slice(&squares.map(|s| s as f32));
        Ok(())
    }

    pub(super) fn clip(&self, call: Clip<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let squares = call.squares.map(|b| read(b, 1)[0]);
        optim::clip(&self.threads, call.limit, squares, write(call.x, call.len));
        Ok(())
    }

    pub(super) fn lerp(&self, call: Lerp<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        optim::lerp(&self.threads, call.weight, read(call.x, call.len), write(call.out, call.len));
        Ok(())
    }

    pub(super) fn sum_squares(&self, call: SumSquares<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let mut workspace = self.workspace(reduce::sum_squares_workspace(call.len))?;
        let total = reduce::sum_squares(&self.threads, read(call.x, call.len), &mut workspace) as f32;
        let sum = &mut write(call.sum, 1)[0];
        *sum = if call.accumulate { *sum + total } else { total };
        Ok(())
    }
}
