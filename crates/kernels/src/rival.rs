//! The `gemm` crate's matrix product behind a safe door, for benchmarks to stand beside (feature `gemm`).

#![allow(unsafe_code)]

/// `c = a · b` by the `gemm` crate on `threads` threads: `[m, k]` times `[k, n]` is `[m, n]`, dense; `sa` and `sb` are the strides
/// of rows and columns, so that either may be read transposed. `c` has rows of `n`.
///
/// # Panics
/// If a slice is shorter than its matrix, or a stride is not that of a dense one.
pub fn product(
    threads: usize,
    [m, n, k]: [usize; 3],
    a: &[f32],
    sa: [usize; 2],
    b: &[f32],
    sb: [usize; 2],
    c: &mut [f32],
) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "a matrix is short");
    assert!(sa == [k, 1] || sa == [1, m], "strides {sa:?} of {m}x{k}");
    assert!(sb == [n, 1] || sb == [1, k], "strides {sb:?} of {k}x{n}");
    let [ra, ca] = sa.map(|s| s as isize);
    let [rb, cb] = sb.map(|s| s as isize);
    let parallel = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    // SAFETY: dense matrices of the asserted lengths and strides; `c` overlaps nothing, being borrowed mutably.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            ca,
            ra,
            b.as_ptr(),
            cb,
            rb,
            0.0,
            1.0,
            false,
            false,
            false,
            parallel,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_may_be_transposed() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]);
        let (at, bt) = ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0], [1.0, 2.0, 0.0, 0.0, 1.0, 3.0]);
        for (a, sa) in [(&a, [3, 1]), (&at, [1, 2])] {
            for (b, sb) in [(&b, [2, 1]), (&bt, [1, 3])] {
                let mut c = [9.0; 4];
                product(1, [2, 2, 3], a, sa, b, sb, &mut c);
                assert_eq!(c, [5.0, 11.0, 14.0, 23.0]);
            }
        }
    }
}
