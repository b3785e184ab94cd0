// Whether a number replaces the largest so far. NaN is found by its bits: compilers may assume that there is none.
#if VECTORS
fn larger(v: vec4<f32>, than: vec4<f32>) -> vec4<bool> {
    return (v > than) | ((bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}
#else
fn larger(v: f32, than: f32) -> bool {
    return (v > than) | ((bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u);
}
#end
