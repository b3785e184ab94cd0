// What a layer's weight would move by, before LAMB's trust ratio. `grow` is 1 / (1 - beta1^step), `root` the root of
// 1 - beta2^step.
fn wanted(param: T, m: T, v: T) -> T {
    return m * p.grow / (sqrt(v) / p.root + T(p.eps)) + p.weight_decay * param;
}
