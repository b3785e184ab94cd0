// The windows of a pool. Adaptive ones have a stride of 0.
struct Params {
    at0: u32, at1: u32, at2: u32, at3: u32, at4: u32, at5: u32, at6: u32, at7: u32,
    // What is written: pieces of W elements first .. end. Channels in units of W.
    first: u32, end: u32, c: u32,
    h: u32, w: u32, oh: u32, ow: u32,
    kernel_y: u32, kernel_x: u32, stride_y: u32, stride_x: u32, pad_y: u32, pad_x: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

// The input positions start .. end that output `i` of an axis covers.
struct Range { start: u32, end: u32 }

fn covered(i: u32, size: u32, outs: u32, kernel: u32, stride: u32, pad: u32) -> Range {
    if (stride == 0u) {
        return Range(i * size / outs, ((i + 1u) * size + outs - 1u) / outs);
    }
    let start = i * stride;
    return Range(max(start, pad) - pad, min(start + kernel - pad, size));
}

fn covered_y(i: u32) -> Range {
    return covered(i, p.h, p.oh, p.kernel_y, p.stride_y, p.pad_y);
}

fn covered_x(i: u32) -> Range {
    return covered(i, p.w, p.ow, p.kernel_x, p.stride_x, p.pad_x);
}

// The outputs start .. end that cover input `i` of an axis.
fn covering(i: u32, size: u32, outs: u32, kernel: u32, stride: u32, pad: u32) -> Range {
    if (stride == 0u) {
        return Range(i * outs / size, ((i + 1u) * outs + size - 1u) / size);
    }
    let low = max(i + pad + 1u, kernel) - kernel;
    return Range((low + stride - 1u) / stride, min((i + pad) / stride + 1u, outs));
}
