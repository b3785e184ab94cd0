// Sums and largest values over a workgroup, the same bits in every thread.
var<workgroup> tree_numbers: array<f32, TREE>;
var<workgroup> tree_places: array<u32, TREE>;

struct Place { value: f32, at: u32 }

fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

// The larger of two, of equals that at the smaller place; NaN counts as the largest, a place of all ones as nothing.
fn later(a: Place, b: Place) -> Place {
    if (a.at == 0xffffffffu) {
        return b;
    }
    if (b.at == 0xffffffffu) {
        return a;
    }
    let a_nan = is_nan(a.value);
    let b_nan = is_nan(b.value);
    if (a_nan || b_nan) {
        if (a_nan && b_nan) {
            if (a.at < b.at) { return a; }
            return b;
        }
        if (a_nan) { return a; }
        return b;
    }
    if (b.value > a.value || (b.value == a.value && b.at < a.at)) {
        return b;
    }
    return a;
}

fn tree_largest(t: u32, own: Place) -> Place {
    tree_numbers[t] = own.value;
    tree_places[t] = own.at;
    workgroupBarrier();
    for (var step = TREE / 2u; step > 0u; step /= 2u) {
        if (t < step) {
            let both = later(
                Place(tree_numbers[t], tree_places[t]),
                Place(tree_numbers[t + step], tree_places[t + step]),
            );
            tree_numbers[t] = both.value;
            tree_places[t] = both.at;
        }
        workgroupBarrier();
    }
    let all = Place(tree_numbers[0], tree_places[0]);
    workgroupBarrier();
    return all;
}

fn tree_sum(t: u32, own: f32) -> f32 {
    tree_numbers[t] = own;
    workgroupBarrier();
    for (var step = TREE / 2u; step > 0u; step /= 2u) {
        if (t < step) {
            tree_numbers[t] += tree_numbers[t + step];
        }
        workgroupBarrier();
    }
    let all = tree_numbers[0];
    workgroupBarrier();
    return all;
}
