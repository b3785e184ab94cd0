//! A few pictures for the examples in the documentation.

use std::path::PathBuf;

/// A fresh temporary folder of two classes, red and blue, eight pictures each.
///
/// # Errors
/// A disk that is full.
pub fn photos() -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("defrost-doc-{}", std::process::id()));
    for (class, colour) in [("red", [220, 30, 30]), ("blue", [30, 30, 220])] {
        std::fs::create_dir_all(folder.join(class))?;
        for i in 0..8_u8 {
            let shade =
                |x: u32, y: u32| colour.map(|c: u8| c.saturating_add(((x * 7 + y * 3) as u8 % 24) + i));
            let picture = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb(shade(x, y)));
            picture.save(folder.join(class).join(format!("{i}.png"))).map_err(std::io::Error::other)?;
        }
    }
    Ok(folder)
}
