//! An optimizer's step with a gradient that never exists as a whole.

use defrost_tensor::Call;
use defrost_tensor::call::{Adam, Gemm, RmsProp, Sgd};

use super::{NoRoom, SliceKernels, grown, read};

/// Elements of a piece: it stays in the cache between the product that makes it and the step that uses it up.
const PIECE: usize = 1 << 19;

impl SliceKernels {
    /// The product `gemm` of a transposed matrix with another, and the step `update` with it as the gradient, some rows at a
    /// time. The numbers are those of the one after the other, to rounding. `false`, with nothing done, for other products and for rules that
    /// need a whole layer.
    ///
    /// # Errors
    /// No room for a piece.
    pub fn gemm_step(
        &self,
        gemm: Gemm<&[f32], ()>,
        mut update: Call<(), &mut [f32]>,
    ) -> Result<bool, NoRoom> {
        let Gemm { m, n, k, transpose_a, transpose_b, accumulate, activation, a, b, bias, c: () } = gemm;
        let by_element = matches!(update, Call::Sgd(_) | Call::Adam(_) | Call::RmsProp(_));
        if !transpose_a || accumulate || bias.is_some() || !by_element {
            return Ok(false);
        }
        let most = (PIECE / n.max(1)).clamp(1, m.max(1));
        let mut buffer = grown(&self.piece, most * (n + k))?;
        let (grad, columns) = buffer.split_at_mut(most * n);
        for first in (0..m).step_by(most) {
            let rows = most.min(m - first);
            // The product's rows are columns of `a`.
            for (part, row) in columns.chunks_exact_mut(rows).zip(read(a, m * k).chunks_exact(m)) {
                part.copy_from_slice(&row[first..][..rows]);
            }
            let grad = &mut grad[..rows * n];
            let (a, c) = (&*columns, &mut *grad);
            let (transpose_a, accumulate, bias) = (true, false, None);
            self.gemm(Gemm {
                m: rows,
                n,
                k,
                transpose_a,
                transpose_b,
                accumulate,
                activation,
                a,
                b,
                bias,
                c,
            })?;
            if let Some(call) = piece(&mut update, grad, first * n) {
                self.run(call)?;
            }
        }
        Ok(true)
    }
}

/// The part of `update` for the elements from `first` on of which `grad` is the gradient; `None` for rules of whole layers.
fn piece<'a>(
    update: &'a mut Call<(), &mut [f32]>,
    grad: &'a [f32],
    first: usize,
) -> Option<Call<&'a [f32], &'a mut [f32]>> {
    fn part(all: &mut [f32], first: usize, len: usize) -> &mut [f32] {
        &mut all[first..][..len]
    }
    let len = grad.len();
    Some(match update {
        Call::Sgd(c) => {
            let Sgd { lr, momentum, weight_decay, nesterov, .. } = *c;
            let (param, velocity) = (part(c.param, first, len), c.velocity.as_deref_mut());
            let velocity = velocity.map(|v| part(v, first, len));
            Sgd { len, lr, momentum, weight_decay, nesterov, grad, param, velocity }.into()
        }
        Call::Adam(c) => {
            let Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step, .. } = *c;
            let param = part(c.param, first, len);
            let (first, second) = (part(c.first, first, len), part(c.second, first, len));
            Adam { len, lr, beta1, beta2, eps, weight_decay, decoupled, step, grad, param, first, second }
                .into()
        }
        Call::RmsProp(c) => {
            let RmsProp { lr, alpha, eps, momentum, weight_decay, .. } = *c;
            let (param, square) = (part(c.param, first, len), part(c.square, first, len));
            let [velocity, mean] =
                [&mut c.velocity, &mut c.mean].map(|b| b.as_deref_mut().map(|b| part(b, first, len)));
            RmsProp { len, lr, alpha, eps, momentum, weight_decay, grad, param, square, velocity, mean }
                .into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threads;
    use crate::conv::Algorithm;
    use crate::testing::random;

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let kernels = SliceKernels::new(Threads::new(2), Algorithm::Auto);
        // Three pieces, the last of them short.
        let (m, n, k) = (5, PIECE / 2, 3);
        let (a, b, start) = (random(k * m, 1), random(k * n, 2), random(m * n, 3));
        let gemm = |a, b| Gemm {
            m,
            n,
            k,
            transpose_a: true,
            transpose_b: false,
            accumulate: false,
            activation: Default::default(),
            a,
            b,
            bias: None,
            c: (),
        };
        let mut grad = vec![0.0; m * n];
        let mut out = Some(&mut grad[..]);
        kernels.run(gemm(&a[..], &b[..]).map(&mut |r| r, &mut |()| out.take().unwrap()).into()).unwrap();
        let sgd = Sgd {
            len: m * n,
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 0.01,
            nesterov: false,
            grad: (),
            param: (),
            velocity: Some(()),
        };
        let adam = Adam {
            len: m * n,
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-6,
            weight_decay: 0.01,
            decoupled: true,
            step: 3,
            grad: (),
            param: (),
            first: (),
            second: (),
        };
        for rule in [Call::from(sgd), Call::from(adam)] {
            let mut kept: Vec<_> = (0..3).map(|_| start.clone()).collect();
            let mut whole = kept.clone();
            let mut all = kept.iter_mut();
            let update = rule.map(&mut |()| (), &mut |()| &mut all.next().unwrap()[..]);
            assert!(kernels.gemm_step(gemm(&a, &b), update).unwrap());
            let mut all = whole.iter_mut();
            kernels.run(rule.map(&mut |()| &grad[..], &mut |()| &mut all.next().unwrap()[..])).unwrap();
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6 * b.abs().max(1.0);
            let differs = kept.iter().flatten().zip(whole.iter().flatten()).any(far);
            assert!(!differs && kept[0] != start, "{}", rule.name());
        }
        let plain = Gemm { transpose_a: false, ..gemm(&a[..], &b[..]) };
        let mut all = [start.clone(), start.clone()];
        let mut one = all.iter_mut();
        let update = Call::from(sgd).map(&mut |()| (), &mut |()| &mut one.next().unwrap()[..]);
        assert!(!kernels.gemm_step(plain, update).unwrap());
        assert_eq!(all[0], start);
    }
}
