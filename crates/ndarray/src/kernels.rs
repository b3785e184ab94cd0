//! `impl Kernels for CpuKernels`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use defrost_kernels::conv::{self, Algorithm, ConvShape, Epilogue};
use defrost_kernels::elementwise::Channels;
use defrost_kernels::matmul::Matmul;
use defrost_kernels::norm::{Affine, BatchStats, Folded, Incoming, Wanted};
use defrost_kernels::pool::PoolShape;
use defrost_kernels::{
    AlignedBuf, Isa, Threads, elementwise, layout, loss, matmul, norm, optim, pool, reduce,
};
use defrost_tensor::call::*;
use defrost_tensor::{ConvDesc, KernelError, Kernels, Layout, PixelScale, PoolDesc, Shape4};

/// What is wrong where a call's shapes do not fit: the planner inferred them, so it is a bug.
const PLANNED: &str = "a planned call has consistent shapes";

/// A buffer of the CPU backend.
#[derive(Debug)]
pub struct CpuBuf(AlignedBuf);

impl CpuBuf {
    /// The elements as they are stored; a slot may be longer than the value in it.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

/// How the CPU backend computes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Compute threads, one a core by default. The number changes no bit of any result.
    pub threads: Option<usize>,
    /// Convolutions as the plain sums of products, without Winograd's way of leaving products out: some 10⁻⁷ nearer to the
    /// exact result, and up to three times as slow.
    pub exact: bool,
    /// The instruction set, the best of the machine by default. Each rounds in its own way.
    pub isa: Option<Isa>,
}

impl CpuOptions {
    /// With this many threads.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// With plain sums of products.
    pub fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    /// With another instruction set.
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa: Some(isa), ..self }
    }
}

/// The CPU backend's kernels: some threads and one workspace.
#[derive(Debug)]
pub struct CpuKernels {
    threads: Threads,
    algorithm: Algorithm,
    /// Grows to the largest that any call needed.
    workspace: Mutex<AlignedBuf>,
}

impl CpuKernels {
    /// Kernels on `threads` threads, or on as many as the system says are useful.
    pub fn new(threads: Option<usize>) -> Self {
        Self::with_options(CpuOptions { threads, ..CpuOptions::default() })
    }

    /// Kernels that compute as `options` say.
    pub fn with_options(options: CpuOptions) -> Self {
        let threads = options.threads.map_or_else(Threads::all, Threads::new);
        let threads = threads.with_isa(options.isa.unwrap_or_else(Isa::best));
        let algorithm = if options.exact { Algorithm::Direct } else { Algorithm::Auto };
        Self { threads, algorithm, workspace: Mutex::new(AlignedBuf::empty()) }
    }

    fn conv_shape(&self, desc: ConvDesc, input: Shape4) -> ConvShape {
        ConvShape::new(desc, input).expect(PLANNED).with_algorithm(self.algorithm)
    }

    /// The workspace, of at least `len` floats.
    fn workspace(&self, len: usize) -> Result<MutexGuard<'_, AlignedBuf>, KernelError> {
        // Its contents mean nothing between calls, so a call that panicked has broken nothing.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if workspace.len() < len {
            // The old one goes first: both together may not fit.
            *workspace = AlignedBuf::empty();
            *workspace = self.zeroed(len)?;
        }
        Ok(workspace)
    }

    fn zeroed(&self, len: usize) -> Result<AlignedBuf, KernelError> {
        AlignedBuf::zeroed(len)
            .ok_or_else(|| KernelError::OutOfMemory { device: self.device(), bytes: len.saturating_mul(4) })
    }
}

/// The first `len` elements.
fn read(buf: &CpuBuf, len: usize) -> &[f32] {
    &buf.0[..len]
}

/// The first `len` elements.
fn write(buf: &mut CpuBuf, len: usize) -> &mut [f32] {
    &mut buf.0[..len]
}

fn weight_len(desc: &ConvDesc) -> usize {
    desc.weight_shape().iter().product()
}

fn pool_shape(desc: PoolDesc, input: Shape4) -> PoolShape {
    PoolShape::new(desc, input).expect(PLANNED)
}

impl Kernels for CpuKernels {
    type Buf = CpuBuf;

    fn device(&self) -> String {
        let count = self.threads.count();
        let s = if count == 1 { "" } else { "s" };
        let exact = if self.algorithm == Algorithm::Direct { ", exact" } else { "" };
        format!("cpu ({count} thread{s}, {}{exact})", self.threads.isa().name())
    }

    fn alloc(&self, layout: Layout) -> Result<CpuBuf, KernelError> {
        Ok(CpuBuf(self.zeroed(layout.len())?))
    }

    fn upload(&self, layout: Layout, host: &[f32], dst: &mut CpuBuf) -> Result<(), KernelError> {
        let dst = write(dst, layout.len());
        match layout {
            Layout::Activation(shape) => layout::nchw_to_nhwc(&self.threads, shape, host, false, dst),
            Layout::ConvWeight(shape) => layout::oihw_to_hwio(shape, host, dst),
            _ => dst.copy_from_slice(host),
        }
        Ok(())
    }

    fn upload_pixels(
        &self,
        shape: Shape4,
        pixels: &[u8],
        scale: &PixelScale,
        dst: &mut CpuBuf,
    ) -> Result<(), KernelError> {
        let PixelScale { scale, shift, reversed } = scale;
        layout::pixels(&self.threads, shape, pixels, scale, shift, *reversed, write(dst, shape.len()));
        Ok(())
    }

    fn download(&self, layout: Layout, src: &CpuBuf, host: &mut [f32]) -> Result<(), KernelError> {
        let src = read(src, layout.len());
        match layout {
            Layout::Activation(shape) => layout::nhwc_to_nchw(&self.threads, shape, src, host),
            Layout::ConvWeight(shape) => layout::hwio_to_oihw(shape, src, host),
            _ => host.copy_from_slice(src),
        }
        Ok(())
    }

    fn fill(&self, len: usize, value: f32, dst: &mut CpuBuf) -> Result<(), KernelError> {
        write(dst, len).fill(value);
        Ok(())
    }

    fn conv2d(&self, call: Conv2d<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = self.conv_shape(call.desc, call.input);
        let out = shape.output();
        let mut workspace = self.workspace(conv::forward_workspace(&self.threads, &shape))?;
        let epilogue = Epilogue {
            bias: call.bias.map(|b| read(b, out.c)),
            residual: call.residual.map(|r| read(r, out.len())),
            activation: call.activation,
        };
        let (x, weight) = (read(call.x, call.input.len()), read(call.weight, weight_len(&call.desc)));
        conv::forward(
            &self.threads,
            &shape,
            x,
            weight,
            &epilogue,
            write(call.out, out.len()),
            &mut workspace,
        );
        Ok(())
    }

    fn conv2d_grad_input(&self, call: Conv2dGradInput<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = self.conv_shape(call.desc, call.input);
        let mut workspace = self.workspace(conv::grad_input_workspace(&self.threads, &shape))?;
        conv::grad_input(
            &self.threads,
            &shape,
            read(call.grad_out, shape.output().len()),
            read(call.weight, weight_len(&call.desc)),
            call.accumulate,
            write(call.grad_in, call.input.len()),
            &mut workspace,
        );
        Ok(())
    }

    fn conv2d_grad_weight(&self, call: Conv2dGradWeight<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = self.conv_shape(call.desc, call.input);
        let mut workspace = self.workspace(conv::grad_weight_workspace(&self.threads, &shape))?;
        conv::grad_weight(
            &self.threads,
            &shape,
            read(call.x, call.input.len()),
            read(call.grad_out, shape.output().len()),
            call.accumulate,
            write(call.grad_weight, weight_len(&call.desc)),
            &mut workspace,
        );
        Ok(())
    }

    fn norm_train(&self, call: NormTrain<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (c, len) = (call.desc.channels, call.shape.len());
        let mut workspace = self.workspace(norm::workspace(call.shape.rows(), c))?;
        let stats = BatchStats {
            mean: write(call.mean, c),
            inv_std: write(call.inv_std, c),
            running_mean: call.running_mean.map(|b| write(b, c)),
            running_var: call.running_var.map(|b| write(b, c)),
        };
        norm::train(
            &self.threads,
            &call.desc,
            call.activation,
            read(call.x, len),
            Affine { weight: read(call.weight, c), bias: read(call.bias, c) },
            write(call.out, len),
            stats,
            &mut workspace,
        );
        Ok(())
    }

    fn norm_train_grad(&self, call: NormTrainGrad<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (c, len) = (call.desc.channels, call.shape.len());
        let mut workspace = self.workspace(norm::workspace(call.shape.rows(), c))?;
        norm::train_grad(
            &self.threads,
            read(call.x, len),
            read(call.weight, c),
            read(call.mean, c),
            read(call.inv_std, c),
            Incoming {
                grad_out: read(call.grad_out, len),
                activation: call.activation,
                bias: call.bias.map(|b| read(b, c)),
                out: call.out.map(|b| read(b, len)),
            },
            Wanted {
                grad_in: call.grad_in.map(|b| write(b, len)),
                accumulate: call.accumulate,
                grad_weight: call.grad_weight.map(|b| write(b, c)),
                grad_bias: call.grad_bias.map(|b| write(b, c)),
                accumulate_params: call.accumulate_params,
            },
            &mut workspace,
        );
        Ok(())
    }

    fn norm_eval(&self, call: NormEval<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (c, len) = (call.desc.channels, call.shape.len());
        let mut workspace = self.workspace(norm::workspace(call.shape.rows(), c))?;
        norm::eval(
            &self.threads,
            &call.desc,
            call.activation,
            read(call.x, len),
            Affine { weight: read(call.weight, c), bias: read(call.bias, c) },
            read(call.running_mean, c),
            read(call.running_var, c),
            write(call.out, len),
            &mut workspace,
        );
        Ok(())
    }

    fn norm_eval_grad(&self, call: NormEvalGrad<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (c, len) = (call.desc.channels, call.shape.len());
        let mut workspace = self.workspace(norm::workspace(call.shape.rows(), c))?;
        norm::eval_grad(
            &self.threads,
            &call.desc,
            call.x.map(|b| read(b, len)),
            read(call.weight, c),
            read(call.running_mean, c),
            read(call.running_var, c),
            Incoming {
                grad_out: read(call.grad_out, len),
                activation: call.activation,
                bias: None,
                out: call.out.map(|b| read(b, len)),
            },
            Wanted {
                grad_in: call.grad_in.map(|b| write(b, len)),
                accumulate: call.accumulate,
                grad_weight: call.grad_weight.map(|b| write(b, c)),
                grad_bias: call.grad_bias.map(|b| write(b, c)),
                accumulate_params: call.accumulate_params,
            },
            &mut workspace,
        );
        Ok(())
    }

    fn fold_norm(&self, call: FoldNorm<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (c, len) = (call.desc.channels, weight_len(&call.conv));
        let norm = Folded {
            affine: Affine { weight: read(call.norm_weight, c), bias: read(call.norm_bias, c) },
            running_mean: read(call.running_mean, c),
            running_var: read(call.running_var, c),
            bias: call.bias.map(|b| read(b, c)),
        };
        let (weight, folded) = (read(call.weight, len), write(call.folded_weight, len));
        norm::fold(&call.desc, weight, &norm, folded, write(call.folded_bias, c));
        Ok(())
    }

    fn activate(&self, call: Activate<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        elementwise::activate(
            &self.threads,
            call.activation,
            read(call.x, call.len),
            write(call.out, call.len),
        );
        Ok(())
    }

    fn activate_grad(&self, call: ActivateGrad<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (out, grad_out) = (read(call.out, call.len), read(call.grad_out, call.len));
        let grad_in = write(call.grad_in, call.len);
        elementwise::activate_grad(&self.threads, call.activation, out, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    fn add(&self, call: Add<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (a, b) = (read(call.a, call.len), read(call.b, call.len));
        elementwise::add(&self.threads, call.activation, a, b, write(call.out, call.len));
        Ok(())
    }

    fn copy(&self, call: Copy<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        elementwise::copy(&self.threads, read(call.x, call.len), call.accumulate, write(call.out, call.len));
        Ok(())
    }

    fn max_pool(&self, call: MaxPool<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = pool_shape(call.desc, call.input);
        let out = write(call.out, shape.output().len());
        pool::max(&self.threads, &shape, read(call.x, call.input.len()), out);
        Ok(())
    }

    fn max_pool_grad(&self, call: MaxPoolGrad<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = pool_shape(call.desc, call.input);
        let (x, grad_out) = (read(call.x, call.input.len()), read(call.grad_out, shape.output().len()));
        let grad_in = write(call.grad_in, call.input.len());
        pool::max_grad(&self.threads, &shape, x, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    fn avg_pool(&self, call: AvgPool<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = pool_shape(call.desc, call.input);
        let out = write(call.out, shape.output().len());
        pool::avg(&self.threads, &shape, read(call.x, call.input.len()), out);
        Ok(())
    }

    fn avg_pool_grad(&self, call: AvgPoolGrad<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let shape = pool_shape(call.desc, call.input);
        let grad_out = read(call.grad_out, shape.output().len());
        let grad_in = write(call.grad_in, call.input.len());
        pool::avg_grad(&self.threads, &shape, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    fn gemm(&self, call: Gemm<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let Gemm { m, n, k, transpose_a, transpose_b, accumulate, activation, .. } = call;
        let shape = Matmul { m, n, k, transpose_a, transpose_b, accumulate, activation };
        let mut workspace = self.workspace(shape.workspace(&self.threads))?;
        let (a, b) = (read(call.a, m * k), read(call.b, k * n));
        let bias = call.bias.map(|b| read(b, n));
        matmul::run(&self.threads, &shape, a, b, bias, write(call.c, m * n), &mut workspace);
        Ok(())
    }

    fn channel_sum(&self, call: ChannelSum<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let (rows, c) = (call.shape.rows(), call.shape.c);
        let mut workspace = self.workspace(reduce::channel_sum_workspace(rows, c))?;
        let (x, sum) = (read(call.x, call.shape.len()), write(call.sum, c));
        reduce::channel_sum(&self.threads, x, rows, call.accumulate, sum, &mut workspace);
        Ok(())
    }

    fn flatten(&self, call: Flatten<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let len = call.input.len();
        layout::nhwc_to_nchw(&self.threads, call.input, read(call.x, len), write(call.out, len));
        Ok(())
    }

    fn unflatten(&self, call: Unflatten<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let len = call.input.len();
        let (x, out) = (read(call.x, len), write(call.out, len));
        layout::nchw_to_nhwc(&self.threads, call.input, x, call.accumulate, out);
        Ok(())
    }

    fn copy_channels(&self, call: CopyChannels<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let CopyChannels { input, output, from, to, channels, accumulate, .. } = call;
        let at = Channels { source: [input.c, from], target: [output.c, to], count: channels };
        let (x, out) = (read(call.x, input.len()), write(call.out, output.len()));
        elementwise::copy_channels(&self.threads, at, x, accumulate, out);
        Ok(())
    }

    fn dropout(&self, call: Dropout<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let Shape4 { n, .. } = call.shape;
        let len = call.shape.len();
        let dropout = elementwise::Dropout { rate: call.rate, layer: call.layer };
        let (x, keys) = (read(call.x, len), read(call.keys, 2 * n));
        elementwise::dropout(dropout, call.shape.c, x, keys, call.accumulate, write(call.out, len));
        Ok(())
    }

    fn softmax_cross_entropy(
        &self,
        call: SoftmaxCrossEntropy<&CpuBuf, &mut CpuBuf>,
    ) -> Result<(), KernelError> {
        let len = call.n * call.classes;
        let (logits, targets) = (read(call.logits, len), read(call.targets, len));
        let grad = call.grad.map(|b| write(b, len));
        let stats = loss::softmax_cross_entropy(call.classes, call.gamma, logits, targets, grad);
        write(call.stats, 2).copy_from_slice(&[stats.loss as f32, stats.hits as f32]);
        Ok(())
    }

    fn elementwise_loss(&self, call: ElementwiseLoss<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let len = call.n * call.classes;
        let (x, targets, weights) = (read(call.x, len), read(call.targets, len), read(call.weights, len));
        let grad = call.grad.map(|b| write(b, len));
        let stats = loss::elementwise(call.loss, call.classes, x, targets, weights, grad);
        write(call.stats, 2).copy_from_slice(&[stats.loss as f32, stats.hits as f32]);
        Ok(())
    }

    fn sgd(&self, call: Sgd<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let Sgd { len, lr, momentum, weight_decay, nesterov, .. } = call;
        let step = optim::Sgd { lr, momentum, weight_decay, nesterov };
        let velocity = call.velocity.map(|b| write(b, len));
        optim::sgd(&self.threads, step, read(call.grad, len), write(call.param, len), velocity);
        Ok(())
    }

    fn adam(&self, call: Adam<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let Adam { len, lr, beta1, beta2, eps, weight_decay, decoupled, step, .. } = call;
        let step = optim::Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step };
        let (first, second) = (write(call.first, len), write(call.second, len));
        optim::adam(&self.threads, step, read(call.grad, len), write(call.param, len), first, second);
        Ok(())
    }

    fn rms_prop(&self, call: RmsProp<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let RmsProp { len, lr, alpha, eps, momentum, weight_decay, .. } = call;
        let step = optim::RmsProp { lr, alpha, eps, momentum, weight_decay };
        let (grad, param, square) = (read(call.grad, len), write(call.param, len), write(call.square, len));
        let [velocity, mean] = [call.velocity, call.mean].map(|b| b.map(|b| write(b, len)));
        optim::rms_prop(&self.threads, step, grad, param, square, velocity, mean);
        Ok(())
    }

    fn lamb(&self, call: Lamb<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let Lamb { len, lr, beta1, beta2, eps, weight_decay, step, .. } = call;
        let step = optim::Lamb { lr, beta1, beta2, eps, weight_decay, step };
        let mut workspace = self.workspace(optim::lamb_workspace(len))?;
        let (grad, param) = (read(call.grad, len), write(call.param, len));
        let (first, second) = (write(call.first, len), write(call.second, len));
        let squares = optim::lamb(&self.threads, step, grad, param, first, second, &mut workspace);
        write(call.squares, 2).copy_from_slice(&squares.map(|s| s as f32));
        Ok(())
    }

    fn clip(&self, call: Clip<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let squares = call.squares.map(|b| read(b, 1)[0]);
        optim::clip(&self.threads, call.limit, squares, write(call.x, call.len));
        Ok(())
    }

    fn lerp(&self, call: Lerp<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        optim::lerp(&self.threads, call.weight, read(call.x, call.len), write(call.out, call.len));
        Ok(())
    }

    fn sum_squares(&self, call: SumSquares<&CpuBuf, &mut CpuBuf>) -> Result<(), KernelError> {
        let mut workspace = self.workspace(reduce::sum_squares_workspace(call.len))?;
        let total = reduce::sum_squares(&self.threads, read(call.x, call.len), &mut workspace) as f32;
        let sum = &mut write(call.sum, 1)[0];
        *sum = if call.accumulate { *sum + total } else { total };
        Ok(())
    }
}
