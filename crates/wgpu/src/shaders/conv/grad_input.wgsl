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
    return PlaceA(image * p.s.oh, y, x, group * p.s.group_o);
}

fn output_at(place: PlaceA, k: u32) -> u32 {
    let tap = quotient(k, p.s.group_o, p.s.per_group);
    let c = k - tap * p.s.group_o;
    let ky = quotient(tap, p.s.taps_x, p.s.per_kernel_w);
    let kx = tap - ky * p.s.taps_x;
    let y = place.y - i32(ky) * p.s.step_oy;
    let x = place.x - i32(kx) * p.s.step_ox;
    if (y < 0 || x < 0 || y >= i32(p.s.oh) || x >= i32(p.s.ow)) {
        return 0xffffffffu;
    }
    return ((place.image + u32(y)) * p.s.ow + u32(x)) * p.s.o + place.channel + c;
}

fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
#if VECTORS
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    let at = output_at(place, k);
    if (at == 0xffffffffu) {
        return vec4<f32>();
    }
    return vec4<f32>(a[at / 4u + p.a_at]);
#else
    var v = vec4<f32>();
#for i 0 4
    if (k + {i}u < p.k_end) {
        let at{i} = output_at(place, k + {i}u);
        if (at{i} != 0xffffffffu) {
            v[{i}] = f32(a[at{i} + p.a_at]);
        }
    }
#end
    return v;
#end
}

fn place_b(n: u32, group: u32) -> PlaceB {
    return PlaceB(n * p.s.o + group * p.s.group_o);
}

// The weight of column n (from the place) and k.
fn weight_at(place: PlaceB, k: u32) -> u32 {
    let tap = quotient(k, p.s.group_o, p.s.per_group);
    let c = k - tap * p.s.group_o;
    let iy = quotient(tap, p.s.taps_x, p.s.per_kernel_w);
    let ky = p.s.tap_y + iy * p.s.tap_step_y;
    let kx = p.s.tap_x + (tap - iy * p.s.taps_x) * p.s.tap_step_x;
    return (ky * p.s.kernel_w + kx) * p.s.group_c * p.s.o + place.at + c;
}

fn load_b(place: PlaceB, k: u32) -> vec4<f32> {
#if VECTORS
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    return vec4<f32>(b[weight_at(place, k) / 4u + p.b_at]);
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
