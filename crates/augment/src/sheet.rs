//! Contact sheets: what augmentation does to a picture, as a picture.
//!
//! A [`Sheet`] is pixels and captions: where words stand is decided here, drawing them needs a font and is left to whoever
//! has one (`defrost-report`).

use crate::{Error, Image, Interpolation, Key, Mix, Pipeline, Size, TestTime, resize};

/// Pixels between pictures.
const GAP: usize = 8;
/// Pixels of a line of words.
const LINE: usize = 18;

/// A picture and the words below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The words; empty for none.
    pub label: String,
    /// The picture.
    pub image: Image,
}

/// Pictures that belong together, and the words above them.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The words; empty for none.
    pub title: String,
    /// The pictures.
    pub cells: Vec<Cell>,
}

/// Words on a sheet, for someone who can draw them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caption {
    /// The words.
    pub text: String,
    /// Columns left of them.
    pub left: usize,
    /// Rows above their line.
    pub top: usize,
    /// Columns that they may take.
    pub width: usize,
    /// Rows of their line.
    pub height: usize,
    /// Whether they stand over a whole row of pictures.
    pub title: bool,
}

/// Pictures on white, RGB, and the words that belong to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// The pictures.
    pub image: Image,
    /// The words, none of them drawn.
    pub captions: Vec<Caption>,
}

/// Lays out `rows`, at most `columns` pictures side by side: a row of more goes over several lines. All cells are as large
/// as the largest picture.
///
/// # Errors
/// [`Error::Shape`] where there is no picture at all.
pub fn contact_sheet(rows: &[Row], columns: usize) -> Result<Sheet, Error> {
    let all = || rows.iter().flat_map(|r| &r.cells);
    let most = |side: fn(&Image) -> usize| all().map(|c| side(&c.image)).max().unwrap_or(0);
    let (width, height) = (most(Image::width), most(Image::height));
    let columns = columns.min(rows.iter().map(|r| r.cells.len()).max().unwrap_or(0)).max(1);
    let line = |words: bool| if words { LINE } else { 0 };
    let labelled = |row: &Row| line(row.cells.iter().any(|c| !c.label.is_empty()));

    let wide = columns * (width + GAP) + GAP;
    let (mut places, mut captions, mut top) = (Vec::new(), Vec::new(), GAP);
    for row in rows.iter().filter(|r| !r.cells.is_empty()) {
        if !row.title.is_empty() {
            let text = row.title.clone();
            captions.push(Caption { text, left: GAP, top, width: wide - 2 * GAP, height: LINE, title: true });
            top += LINE;
        }
        let each = height + labelled(row) + GAP;
        for (i, cell) in row.cells.iter().enumerate() {
            let (left, top) = (GAP + i % columns * (width + GAP), top + i / columns * each);
            // A picture that is less high stands on its words.
            places.push((&cell.image, left, top + height - cell.image.height()));
            if !cell.label.is_empty() {
                let (text, top) = (cell.label.clone(), top + height);
                captions.push(Caption { text, left, top, width, height: LINE, title: false });
            }
        }
        top += row.cells.len().div_ceil(columns) * each;
    }
    if places.is_empty() {
        return Err(Error::Shape { width: 0, height: 0, channels: 3, len: 0 });
    }
    let mut image = Image::filled(wide, top, &[255; 3])?;
    places.into_iter().for_each(|(picture, left, top)| paste(&mut image, picture, left, top));
    Ok(Sheet { image, captions })
}

/// The picture itself, then the views that the sample 0 gets in the epochs 0 to `n - 1` of a run with this seed.
///
/// # Errors
/// As [`Pipeline::apply`].
pub fn epochs(
    image: &Image,
    pipeline: &Pipeline,
    size: Size,
    seed: u64,
    n: usize,
) -> Result<Vec<Cell>, Error> {
    let mut cells = vec![Cell { label: "the picture".into(), image: fitted(image, size)? }];
    for epoch in 0..n {
        let image = pipeline.apply(image, size, Key::new(seed, epoch as u64, 0))?;
        let label = if pipeline.is_random() { format!("epoch {}", epoch + 1) } else { "every epoch".into() };
        cells.push(Cell { label, image });
    }
    Ok(cells)
}

/// What becomes of the first of `images` as [`Mix`] mixes the batch of them, each through `pipeline`, in `n` epochs; in
/// front of it the first and its partner, the last.
///
/// # Errors
/// As [`Pipeline::apply`] and [`Mix::check`]; [`Error::Batch`] for pictures of different channels.
pub fn mixed(
    images: &[Image],
    pipeline: &Pipeline,
    mix: &Mix,
    size: Size,
    seed: u64,
    n: usize,
) -> Result<Vec<Cell>, Error> {
    mix.check()?;
    let (Some(first), Some(last)) = (images.first(), images.last()) else { return Ok(Vec::new()) };
    let shape = [images.len(), size.height, size.width, first.channels()];
    let mut cells = vec![
        Cell { label: "the picture".into(), image: fitted(first, size)? },
        Cell { label: "its partner".into(), image: fitted(last, size)? },
    ];
    for epoch in 0..n as u64 {
        let mut pixels = Vec::new();
        for (sample, image) in images.iter().enumerate() {
            let key = Key::new(seed, epoch, sample as u64);
            pixels.extend_from_slice(pipeline.apply(image, size, key)?.data());
        }
        let mut label = "not mixed".to_owned();
        if let Some(plan) = mix.plan(seed, epoch, 0, [images.len(), size.height, size.width]) {
            plan.mix_bytes(&mut pixels, shape)?;
            let own = (100.0 * plan.lambda).round();
            label = format!("{own} % + {} %", 100.0 - own);
        }
        pixels.truncate(size.height * size.width * first.channels());
        cells.push(Cell { label, image: Image::new(size.width, size.height, first.channels(), pixels)? });
    }
    Ok(cells)
}

/// The picture itself, then the views of it that `kind` predicts, with their weights.
///
/// # Errors
/// As [`Pipeline::apply`].
pub fn test_time(
    image: &Image,
    kind: &TestTime,
    eval: &Pipeline,
    train: &Pipeline,
    size: Size,
    seed: u64,
) -> Result<Vec<Cell>, Error> {
    let mut cells = vec![Cell { label: "the picture".into(), image: fitted(image, size)? }];
    for view in kind.views(eval, train) {
        let image = view.pipeline.apply(image, size, Key::new(seed, view.epoch, 0))?;
        let percent = format!("{:.2}", 100.0 * view.weight);
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        cells.push(Cell { label: format!("weight {percent} %"), image });
    }
    Ok(cells)
}

/// The whole picture, as large as fits.
fn fitted(image: &Image, size: Size) -> Result<Image, Error> {
    let scale = (size.width as f64 / image.width() as f64).min(size.height as f64 / image.height() as f64);
    let side = |v: usize| ((v as f64 * scale).round() as usize).max(1);
    let whole = Size { width: side(image.width()), height: side(image.height()) };
    resize(image, whole, Interpolation::Bilinear)
}

/// Puts a picture of any number of channels onto one of three: grey becomes grey, what is transparent white.
fn paste(onto: &mut Image, picture: &Image, left: usize, top: usize) {
    let (wide, channels) = (onto.width(), picture.channels());
    for (y, line) in picture.data().chunks_exact(picture.width() * channels).enumerate() {
        let at = ((top + y) * wide + left) * 3;
        let out = onto.data_mut()[at..at + picture.width() * 3].chunks_exact_mut(3);
        for (out, pixel) in out.zip(line.chunks_exact(channels)) {
            let colour = if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
            let alpha = if channels % 2 == 0 { u16::from(pixel[channels - 1]) } else { 255 };
            let over = |v: u8| ((u16::from(v) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
            out.copy_from_slice(&colour.map(over));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flip, Op};

    fn photo(channels: usize) -> Image {
        Image::new(8, 4, channels, (0..32 * channels).map(|i| (i % 200) as u8).collect()).unwrap()
    }

    #[test]
    fn a_sheet_shows_every_picture_where_its_words_are() {
        let size = Size::square(10);
        let flip = Pipeline(vec![Op::FlipHorizontal(Flip { p: 0.5 })]);
        let cells = epochs(&photo(3), &flip, size, 5, 4).unwrap();
        let rows = [
            Row { title: "flip".into(), cells: cells.clone() },
            Row { title: String::new(), cells: cells[..2].to_vec() },
        ];
        let sheet = contact_sheet(&rows, 3).unwrap();
        // Two lines of three with a title above, one line without: pictures, their words, and gaps.
        assert_eq!((sheet.image.width(), sheet.image.height()), (3 * 18 + 8, 8 + 18 + 3 * (10 + 18 + 8)));
        assert_eq!(sheet.captions.len(), 1 + 5 + 2);
        let fourth = sheet.captions.iter().find(|c| c.text == "epoch 4").unwrap();
        assert_eq!((fourth.left, fourth.top), (8 + 18, 8 + 18 + 36 + 10));
        let view = flip.apply(&photo(3), size, Key::new(5, 3, 0)).unwrap();
        assert_eq!(cells[4].image, view, "what the sample 0 gets in the fourth epoch");
        assert_eq!(sheet.image.pixel(fourth.left + 2, fourth.top - 10 + 3), view.pixel(2, 3));
        assert_eq!(sheet.image.pixel(0, 0), [255; 3]);
        assert!(contact_sheet(&[], 3).is_err());
    }

    #[test]
    fn grey_and_transparent_pictures_have_a_place_too() {
        for (channels, want) in [(1, [90; 3]), (2, [172; 3]), (3, [90; 3]), (4, [172; 3])] {
            let mut colour = vec![90; channels];
            if channels % 2 == 0 {
                colour[channels - 1] = 128;
            }
            let image = Image::filled(4, 4, &colour).unwrap();
            let row = Row { title: String::new(), cells: vec![Cell { label: String::new(), image }] };
            assert_eq!(contact_sheet(&[row], 1).unwrap().image.pixel(9, 9), want, "{channels}");
        }
    }

    #[test]
    fn mixed_pictures_say_what_is_in_them() {
        let (size, plain) = (Size::square(8), Pipeline(Vec::new()));
        let images = [Image::filled(8, 8, &[0]).unwrap(), Image::filled(8, 8, &[200]).unwrap()];
        let cells = mixed(&images, &plain, &Mix { mixup: 1.0, ..Mix::default() }, size, 1, 3).unwrap();
        assert_eq!(cells.len(), 5);
        for cell in &cells[2..] {
            let own: f64 = cell.label.split(' ').next().unwrap().parse().unwrap();
            let seen = 1.0 - f64::from(cell.image.pixel(3, 3)[0]) / 200.0;
            assert!((own / 100.0 - seen).abs() < 0.01, "{}: {seen}", cell.label);
        }
    }

    #[test]
    fn views_say_what_they_weigh() {
        let eval = Pipeline::eval(0.5, Interpolation::Bilinear);
        let kind = TestTime::Augmented { n: 4, beta: 0.25 };
        let cells = test_time(&photo(3), &kind, &eval, &Pipeline::train(), Size::square(8), 0).unwrap();
        let labels: Vec<_> = cells.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels[..3], ["the picture", "weight 25 %", "weight 18.75 %"]);
        assert_eq!(cells.len(), 6);
    }
}
