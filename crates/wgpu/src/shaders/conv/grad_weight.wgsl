// Rows are (ky, kx, input channel), columns output channels, k runs over output positions.
#if VECTORS
struct PlaceA { y: i32, x: i32, channel: u32 }
#else
struct PlaceA { m: u32, group: u32 }
#end
struct PlaceB { at: u32 }

fn out_row(m: u32) -> u32 {
    return m;
}

// The input element that row m meets at output position k, or all ones outside the picture.
fn input_at(y0: i32, x0: i32, channel: u32, k: u32) -> u32 {
    let row = quotient(k, p.s.ow, p.s.per_ow);
    let image = quotient(row, p.s.oh, p.s.per_area);
    let y = i32((row - image * p.s.oh) * p.s.stride_y) + y0;
    let x = i32((k - row * p.s.ow) * p.s.stride_x) + x0;
    if (y < 0 || x < 0 || y >= i32(p.s.h) || x >= i32(p.s.w)) {
        return 0xffffffffu;
    }
    return ((image * p.s.h + u32(y)) * p.s.w + u32(x)) * p.s.c + channel;
}

struct Tap { y: i32, x: i32, channel: u32 }

fn tap_of(m: u32, group: u32) -> Tap {
    let tap = m / p.s.group_c;
    let ky = tap / p.s.kernel_w;
    let kx = tap - ky * p.s.kernel_w;
    let c = group * p.s.group_c + m - tap * p.s.group_c;
    return Tap(i32(ky * p.s.dilation_y) - p.s.pad_y, i32(kx * p.s.dilation_x) - p.s.pad_x, c);
}

#if VECTORS
fn place_a(m: u32, group: u32) -> PlaceA {
    let tap = tap_of(m, group);
    return PlaceA(tap.y, tap.x, tap.channel);
}

fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    let at = input_at(place.y, place.x, place.channel, k);
    if (at == 0xffffffffu) {
        return vec4<f32>();
    }
    return vec4<f32>(a[at / 4u + p.a_at]);
}
#else
fn place_a(m: u32, group: u32) -> PlaceA {
    return PlaceA(m, group);
}

fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
    var v = vec4<f32>();
    if (k >= p.k_end) {
        return v;
    }
    for (var i = 0u; i < min(4u, p.m_end - min(place.m, p.m_end)); i++) {
        let tap = tap_of(place.m + i, place.group);
        let at = input_at(tap.y, tap.x, tap.channel, k);
        if (at != 0xffffffffu) {
            v[i] = f32(a[at + p.a_at]);
        }
    }
    return v;
}
#end

fn place_b(n: u32, group: u32) -> PlaceB {
    return PlaceB(group * p.s.group_o + n);
}

fn load_b(place: PlaceB, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    let at = k * p.s.o + place.at;
#if VECTORS
    return vec4<f32>(b[at / 4u + p.b_at]);
#else
    var v = vec4<f32>();
    for (var i = 0u; i < min(4u, p.s.o - min(place.at, p.s.o)); i++) {
        v[i] = f32(b[at + i + p.b_at]);
    }
    return v;
#end
}
