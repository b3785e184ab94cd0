// Rows are input positions of one remainder by the stride, columns input channels, k runs over (tap that meets them,
// output channel).
struct PlaceA { image: u32, y: i32, x: i32, channel: u32 }
struct PlaceB { at: u32 }

fn out_row(m: u32) -> u32 {
    let row = m / p.s.columns;
    let image = row / p.s.rows;
    let y = p.s.from_y + (row - image * p.s.rows) * p.s.stride_y;
    let x = p.s.from_x + (m - row * p.s.columns) * p.s.stride_x;
    return (image * p.s.h + y) * p.s.w + x;
}

fn place_a(m: u32, group: u32) -> PlaceA {
    let row = m / p.s.columns;
    let image = row / p.s.rows;
    let y = i32(row - image * p.s.rows) + p.s.first_oy;
    let x = i32(m - row * p.s.columns) + p.s.first_ox;
    return PlaceA(image, y, x, group * p.s.group_o);
}

// Tap (y, x) of those that meet the rows, and the output channel.
struct Tap { y: u32, x: u32, channel: u32 }

fn tap_of(k: u32) -> Tap {
    let tap = quotient(k, p.s.group_o, p.s.per_group);
    let y = quotient(tap, p.s.taps_x, p.s.per_kernel_w);
    return Tap(y, tap - y * p.s.taps_x, k - tap * p.s.group_o);
}

// The output element that tap k meets.
fn a_at(place: PlaceA, k: u32) -> u32 {
    let tap = tap_of(k);
    let y = place.y - i32(tap.y) * p.s.step_oy;
    let x = place.x - i32(tap.x) * p.s.step_ox;
    return pixel(place.image, y, x, place.channel + tap.channel, p.s.oh, p.s.ow, p.s.o);
}

fn place_b(n: u32, group: u32) -> PlaceB {
    return PlaceB(n * p.s.o + group * p.s.group_o);
}

// The weight of column n (from the place) and k.
fn weight_at(place: PlaceB, k: u32) -> u32 {
    let tap = tap_of(k);
    let ky = p.s.tap_y + tap.y * p.s.tap_step_y;
    let kx = p.s.tap_x + tap.x * p.s.tap_step_x;
    return (ky * p.s.kernel_w + kx) * p.s.group_c * p.s.o + place.at + tap.channel;
}

fn load_b(place: PlaceB, k: u32) -> vec4<f32> {
#if VECTORS
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    return four_b(weight_at(place, k));
#else
    var v = vec4<f32>();
#for i 0 4
    if (k + {i}u < p.k_end) {
        v[{i}] = f32(b[weight_at(place, k + {i}u) + p.b_at]);
    }
#end
    return v;
#end
}
