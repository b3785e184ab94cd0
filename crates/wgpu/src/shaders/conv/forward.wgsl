// Rows are output positions, columns output channels, k runs over (ky, kx, input channel).
struct PlaceA { image: u32, y: i32, x: i32, channel: u32 }
struct PlaceB { at: u32 }

fn out_row(m: u32) -> u32 {
    return m;
}

fn place_a(m: u32, group: u32) -> PlaceA {
    let row = m / p.s.ow;
    let image = row / p.s.oh;
    let y = i32((row - image * p.s.oh) * p.s.stride_y) - p.s.pad_y;
    let x = i32((m - row * p.s.ow) * p.s.stride_x) - p.s.pad_x;
    return PlaceA(image * p.s.h, y, x, group * p.s.group_c);
}

// The input element that tap k meets, or all ones outside the picture.
fn input_at(place: PlaceA, k: u32) -> u32 {
    let tap = quotient(k, p.s.group_c, p.s.per_group);
    let c = k - tap * p.s.group_c;
    let ky = quotient(tap, p.s.kernel_w, p.s.per_kernel_w);
    let kx = tap - ky * p.s.kernel_w;
    let y = place.y + i32(ky * p.s.dilation_y);
    let x = place.x + i32(kx * p.s.dilation_x);
    if (y < 0 || x < 0 || y >= i32(p.s.h) || x >= i32(p.s.w)) {
        return 0xffffffffu;
    }
    return ((place.image + u32(y)) * p.s.w + u32(x)) * p.s.c + place.channel + c;
}

fn load_a(place: PlaceA, k: u32) -> vec4<f32> {
#if VECTORS
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    let at = input_at(place, k);
    if (at == 0xffffffffu) {
        return vec4<f32>();
    }
    return vec4<f32>(a[at / 4u + p.a_at]);
#else
    var v = vec4<f32>();
#for i 0 4
    if (k + {i}u < p.k_end) {
        let at{i} = input_at(place, k + {i}u);
        if (at{i} != 0xffffffffu) {
            v[{i}] = f32(a[at{i} + p.a_at]);
        }
    }
#end
    return v;
#end
}

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
