// First stages of sums over images, rows and columns: a thread sums W channels over a chunk of positions.
struct Chunk {
    // Its number among all, its channels, its positions.
    number: u32, c: u32, start: u32, last: u32,
}

// The chunk of invocation i of a dispatch that has `p.chunks` of them, the first one's number being `p.chunk`.
fn chunk_of(i: u32) -> Chunk {
    let chunk = i / p.c;
    let start = p.first + chunk * p.rows;
    return Chunk(p.chunk + chunk, i - chunk * p.c, start, min(start + p.rows, p.end));
}
