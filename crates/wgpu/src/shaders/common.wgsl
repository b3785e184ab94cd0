// What all kernels share. `T` is a number or a vector of four (`W` numbers), `Si` what binding i stores.

// The place of an invocation among all of a grid that is folded into two dimensions.
fn linear(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * THREADS + local;
}

// Activations: 0 the identity, 1 ReLU, 2 ReLU6. NaN stays NaN.
fn activated(which: u32, x: T) -> T {
    if (which == 0u) {
        return x;
    }
    let y = select(x, T(0.0), x < T(0.0));
    if (which == 1u) {
        return y;
    }
    return select(y, T(6.0), y > T(6.0));
}

// The gradient that passes where the activation's value is `y`.
fn passed(which: u32, y: T, grad: T) -> T {
    if (which == 0u) {
        return grad;
    }
    let low = select(T(0.0), grad, y > T(0.0));
    if (which == 1u) {
        return low;
    }
    return select(T(0.0), low, y < T(6.0));
}

// a / b for quotients below 2^22; `inverse` is 1 / b.
fn quotient(a: u32, b: u32, inverse: f32) -> u32 {
    let q = u32(f32(a) * inverse);
    let rest = bitcast<i32>(a - q * b);
    return q + select(0u, 1u, rest >= bitcast<i32>(b)) - select(0u, 1u, rest < 0);
}
