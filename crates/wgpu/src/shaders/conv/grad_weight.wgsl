// Rows are (ky, kx, input channel), columns output channels, k runs over output positions.
struct Tap { y: i32, x: i32, channel: u32 }

#if VECTORS
struct PlaceA { tap: Tap }
#else
struct PlaceA { m: u32, group: u32 }
#end

fn out_row(m: u32) -> u32 {
    return m;
}

fn tap_of(m: u32, group: u32) -> Tap {
    let tap = m / p.s.group_c;
    let ky = tap / p.s.kernel_w;
    let kx = tap - ky * p.s.kernel_w;
    let c = group * p.s.group_c + m - tap * p.s.group_c;
    return Tap(i32(ky * p.s.dilation_y) - p.s.pad_y, i32(kx * p.s.dilation_x) - p.s.pad_x, c);
}

fn place_a(m: u32, group: u32) -> PlaceA {
#if VECTORS
    return PlaceA(tap_of(m, group));
#else
    return PlaceA(m, group);
#end
}

// The input element that a tap meets at output position k.
fn input_at(tap: Tap, k: u32) -> u32 {
    let row = quotient(k, p.s.ow, p.s.per_ow);
    let image = quotient(row, p.s.oh, p.s.per_area);
    let y = i32((row - image * p.s.oh) * p.s.stride_y) + tap.y;
    let x = i32((k - row * p.s.ow) * p.s.stride_x) + tap.x;
    return pixel(image, y, x, tap.channel, p.s.h, p.s.w, p.s.c);
}

fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
#if VECTORS
    let at = input_at(place.tap, k);
    if (at == NOWHERE) {
        return vec4<f32>();
    }
    return four_a(at);
#else
    var v = vec4<f32>();
#for i 0 4
    let at{i} = input_at(tap_of(place.m + {i}u, place.group), k);
    if (at{i} != NOWHERE) {
        v[{i}] = f32(a[at{i} + p.a_at]);
    }
#end
    return v;
#end
}
