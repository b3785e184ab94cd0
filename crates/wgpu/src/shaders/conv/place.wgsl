// Where position m of a batch of h x w positions lies.
struct Place { image: u32, y: i32, x: i32 }

fn place_of(m: u32, h: u32, w: u32) -> Place {
    let row = m / w;
    let image = row / h;
    return Place(image, i32(row - image * h), i32(m - row * w));
}
