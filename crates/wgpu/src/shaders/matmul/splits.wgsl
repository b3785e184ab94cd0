// The second stage of a product whose k was split: sums the parts in their order, then finishes as the first would.
// `a` holds the parts, `[split, group, m, n]`.
@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) ids: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = linear(id, ids, t);
    let rows = p.m_end - p.m_first;
    let part = p.groups * rows * (p.n / W);
    if (i >= part) {
        return;
    }
    var sum = T(0.0);
    for (var split = 0u; split < p.splits; split++) {
        sum += T(a[split * part + i]);
    }
    let row = i / (p.n / W);
    finish(p.m_first + row % rows, i % (p.n / W) * W, row / rows, sum);
}
