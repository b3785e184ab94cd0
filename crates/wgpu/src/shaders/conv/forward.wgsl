// Rows are output positions, columns output channels, k runs over (ky, kx, input channel).
struct PlaceA { image: u32, y: i32, x: i32, channel: u32 }

fn out_row(m: u32) -> u32 {
    return m;
}

fn place_a(m: u32, group: u32) -> PlaceA {
    let row = m / p.s.ow;
    let image = row / p.s.oh;
    let y = i32((row - image * p.s.oh) * p.s.stride_y) - p.s.pad_y;
    let x = i32((m - row * p.s.ow) * p.s.stride_x) - p.s.pad_x;
    return PlaceA(image, y, x, group * p.s.group_c);
}

// The input element that tap k meets.
fn a_at(place: PlaceA, k: u32) -> u32 {
    let tap = quotient(k, p.s.group_c, p.s.per_group);
    let c = k - tap * p.s.group_c;
    let ky = quotient(tap, p.s.kernel_w, p.s.per_kernel_w);
    let kx = tap - ky * p.s.kernel_w;
    let y = place.y + i32(ky * p.s.dilation_y);
    let x = place.x + i32(kx * p.s.dilation_x);
    return pixel(place.image, y, x, place.channel + c, p.s.h, p.s.w, p.s.c);
}
