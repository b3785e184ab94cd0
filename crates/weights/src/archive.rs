//! Zip archives in memory, with a bound on what they unpack to.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;

use crate::{Error, Format, Result};

/// A zip archive. Entries are read whole, and their sizes together are bounded.
pub(crate) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    format: Format,
    left: u64,
    limit: u64,
}

impl<'a> Archive<'a> {
    /// Reads the table of contents.
    pub(crate) fn open(bytes: &'a [u8], format: Format) -> Result<Self> {
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| Error::malformed(format, format!("as a zip archive: {e}")))?;
        let limit = crate::budget(bytes.len() as u64);
        Ok(Self { zip, format, left: limit, limit })
    }

    /// The names of the entries, in the archive's order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.zip.file_names().filter_map(|n| Some(n.ok()?.into_owned())).collect()
    }

    /// The bytes of one entry.
    pub(crate) fn read(&mut self, name: &str) -> Result<Vec<u8>> {
        let bad =
            |e: &dyn std::fmt::Display| Error::malformed(self.format, format!("archive entry `{name}`: {e}"));
        let file = self.zip.by_name(name).map_err(|e| bad(&e))?;
        let stored = file.compression() == zip::CompressionMethod::Stored;
        // What an entry says of its size is only a hint unless it is stored as it is.
        let hint = if stored { file.size().min(self.left) } else { 0 };
        let mut out = Vec::with_capacity(hint as usize);
        file.take(self.left + 1).read_to_end(&mut out).map_err(|e| bad(&e))?;
        match self.left.checked_sub(out.len() as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(Error::TooLarge {
                    format: self.format,
                    what: format!("the unpacked archive, at entry `{name}`,"),
                    limit: format!("{} bytes", self.limit),
                });
            }
        }
        Ok(out)
    }

    /// The texts by key in the entry `name`; none where there is no such entry.
    pub(crate) fn metadata(&mut self, name: &str) -> Result<BTreeMap<String, String>> {
        if !self.names().iter().any(|n| n == name) {
            return Ok(BTreeMap::new());
        }
        serde_json::from_slice(&self.read(name)?)
            .map_err(|e| Error::malformed(self.format, format!("archive entry `{name}`: {e}")))
    }
}
