// Second stages of sums: a workgroup adds the chunks of W channels up, by a tree whose shape depends on nothing but their
// number.
var<workgroup> tree: array<T, TREE>;

// Σ own over the workgroup; the result is thread 0's.
fn tree_total(t: u32, own: T) -> T {
    tree[t] = own;
    workgroupBarrier();
    for (var step = TREE / 2u; step > 0u; step /= 2u) {
        if (t < step) {
            tree[t] += tree[t + step];
        }
        workgroupBarrier();
    }
    let all = tree[0];
    workgroupBarrier();
    return all;
}
