//! Convolutions, normalisations, pools and matrix products.

use defrost_tensor::call::*;
use defrost_tensor::{ConvDesc, PoolDesc, Shape4};

use super::{NoRoom, PLANNED, SliceKernels, read, write};
use crate::conv::{self, ConvShape, Epilogue};
use crate::matmul::{self, Matmul};
use crate::norm::{self, Affine, BatchStats, Folded, Incoming, Wanted};
use crate::pool::{self, PoolShape};

fn weight_len(desc: &ConvDesc) -> usize {
    desc.weight_shape().iter().product()
}

fn pool_shape(desc: PoolDesc, input: Shape4) -> PoolShape {
    PoolShape::new(desc, input).expect(PLANNED)
}

impl SliceKernels {
    fn conv_shape(&self, desc: ConvDesc, input: Shape4) -> ConvShape {
        ConvShape::new(desc, input).expect(PLANNED).with_algorithm(self.algorithm).with_half(self.bf16)
    }

    pub(super) fn conv2d(&self, call: Conv2d<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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

    pub(super) fn conv2d_grad_input(&self, call: Conv2dGradInput<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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

    pub(super) fn conv2d_grad_weight(
        &self,
        call: Conv2dGradWeight<&[f32], &mut [f32]>,
    ) -> Result<(), NoRoom> {
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

    pub(super) fn norm_train(&self, call: NormTrain<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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
            norm::Epilogue { residual: call.residual.map(|b| read(b, len)), activation: call.activation },
            read(call.x, len),
            Affine { weight: read(call.weight, c), bias: read(call.bias, c) },
            write(call.out, len),
            stats,
            &mut workspace,
        );
        Ok(())
    }

    pub(super) fn norm_train_grad(&self, call: NormTrainGrad<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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
                grad_residual: call.grad_residual.map(|b| write(b, len)),
            },
            &mut workspace,
        );
        Ok(())
    }

    pub(super) fn norm_eval(&self, call: NormEval<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let (c, len) = (call.desc.channels, call.shape.len());
        let mut workspace = self.workspace(norm::workspace(call.shape.rows(), c))?;
        norm::eval(
            &self.threads,
            &call.desc,
            norm::Epilogue { residual: call.residual.map(|b| read(b, len)), activation: call.activation },
            read(call.x, len),
            Affine { weight: read(call.weight, c), bias: read(call.bias, c) },
            read(call.running_mean, c),
            read(call.running_var, c),
            write(call.out, len),
            &mut workspace,
        );
        Ok(())
    }

    pub(super) fn norm_eval_grad(&self, call: NormEvalGrad<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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
                grad_residual: None,
            },
            &mut workspace,
        );
        Ok(())
    }

    pub(super) fn fold_norm(&self, call: FoldNorm<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
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

    pub(super) fn max_pool(&self, call: MaxPool<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let shape = pool_shape(call.desc, call.input);
        let out = write(call.out, shape.output().len());
        pool::max(&self.threads, &shape, read(call.x, call.input.len()), out);
        Ok(())
    }

    pub(super) fn max_pool_grad(&self, call: MaxPoolGrad<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let shape = pool_shape(call.desc, call.input);
        let (x, grad_out) = (read(call.x, call.input.len()), read(call.grad_out, shape.output().len()));
        let grad_in = write(call.grad_in, call.input.len());
        pool::max_grad(&self.threads, &shape, x, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    pub(super) fn avg_pool(&self, call: AvgPool<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let shape = pool_shape(call.desc, call.input);
        let out = write(call.out, shape.output().len());
        pool::avg(&self.threads, &shape, read(call.x, call.input.len()), out);
        Ok(())
    }

    pub(super) fn avg_pool_grad(&self, call: AvgPoolGrad<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let shape = pool_shape(call.desc, call.input);
        let grad_out = read(call.grad_out, shape.output().len());
        let grad_in = write(call.grad_in, call.input.len());
        pool::avg_grad(&self.threads, &shape, grad_out, call.accumulate, grad_in);
        Ok(())
    }

    pub(super) fn gemm(&self, call: Gemm<&[f32], &mut [f32]>) -> Result<(), NoRoom> {
        let Gemm { m, n, k, transpose_a, transpose_b, accumulate, activation, .. } = call;
        let shape = Matmul { m, n, k, transpose_a, transpose_b, accumulate, activation };
        let mut workspace = self.workspace(shape.workspace(&self.threads))?;
        let (a, b) = (read(call.a, m * k), read(call.b, k * n));
        let bias = call.bias.map(|b| read(b, n));
        matmul::run(&self.threads, &shape, a, b, bias, write(call.c, m * n), &mut workspace);
        Ok(())
    }
}
