// B has a row of all output channels for each k, and columns are those of a group.
struct PlaceB { at: u32 }

fn place_b(n: u32, group: u32) -> PlaceB {
    return PlaceB(group * p.s.group_o + n);
}

fn load_b(place: PlaceB, k: u32) -> vec4<f32> {
    if (k >= p.k_end) {
        return vec4<f32>();
    }
    return four_b(k * p.s.o + place.at);
}
