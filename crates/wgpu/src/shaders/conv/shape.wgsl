// The shape of a convolution, and where a product's rows and columns lie in it. Pictures are n, h, w, c in memory,
// weights kh, kw, in / groups, out.
struct Shape {
    // Rows, columns, channels of the input, then of the output; channels a group of both.
    h: u32, w: u32, c: u32, oh: u32, ow: u32, o: u32, group_c: u32, group_o: u32,
    kernel_w: u32, stride_y: u32, stride_x: u32, dilation_y: u32, dilation_x: u32, pad_y: i32, pad_x: i32,
    // Inverses for `quotient`.
    per_kernel_w: f32, per_group: f32, per_ow: f32, per_area: f32,
    // For the gradient of the input, which is one product for each remainder of a position by the stride: the rows and
    // columns of that remainder, how many there are, its first tap and the step to the next, how many taps across, the
    // first tap's output position for the first row and how far each further tap is from it.
    from_y: u32, from_x: u32, rows: u32, columns: u32, tap_y: u32, tap_x: u32, tap_step_y: u32, tap_step_x: u32,
    taps_x: u32, first_oy: i32, first_ox: i32, step_oy: i32, step_ox: i32,
}

const NOWHERE: u32 = 0xffffffffu;

// The element of a channel at position (y, x) of a picture of h x w positions and c channels; none outside the picture.
fn pixel(image: u32, y: i32, x: i32, channel: u32, h: u32, w: u32, c: u32) -> u32 {
    if (y < 0 || x < 0 || y >= i32(h) || x >= i32(w)) {
        return NOWHERE;
    }
    return ((image * h + u32(y)) * w + u32(x)) * c + channel;
}
