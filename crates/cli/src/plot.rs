//! Plots as files.

use std::path::Path;

use defrost::report;

use crate::Usage;

/// Pixels of a picture for each of the drawing's.
const SCALE: f32 = 2.0;

/// Writes a drawing as the ending of `path` says: as it is, or as a picture.
pub(crate) fn write(path: &Path, svg: &str) -> anyhow::Result<()> {
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("svg") => svg.as_bytes().to_vec(),
        Some("png") => report::png(svg, SCALE)?,
        _ => {
            let what = format!("{}: the name of a plot ends in .svg or .png", path.display());
            return Err(Usage::new(what).into());
        }
    };
    Ok(defrost::weights::atomic::write_bytes(path, &bytes)?)
}
