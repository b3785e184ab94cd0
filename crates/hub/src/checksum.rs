//! What says whether a file is the published one.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};

/// A published checksum, in hex digits of lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Checksum {
    /// SHA-256, or its first digits (torchvision's file names carry eight).
    Sha256(String),
    /// MD5 (Keras).
    Md5(String),
}

impl Checksum {
    /// What a file `name` of torchvision says of itself: the digits between its last `-` and the extension, which
    /// `torch.hub` calls the hash prefix.
    pub fn in_name(name: &str) -> Option<Self> {
        let stem = name.rsplit_once('.')?.0;
        let digits = stem.rsplit_once('-')?.1;
        (digits.len() >= 8 && is_hex(digits)).then(|| Self::Sha256(digits.to_ascii_lowercase()))
    }

    /// What an `ETag` says: 64 digits are the SHA-256 of a large file on the hub, 32 the MD5 of a file in Google's storage,
    /// where Keras' lie. Other tags say nothing of the content.
    pub(crate) fn in_etag(etag: &str) -> Option<Self> {
        let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
        match etag.len() {
            64 if is_hex(etag) => Some(Self::Sha256(etag.to_ascii_lowercase())),
            32 if is_hex(etag) => Some(Self::Md5(etag.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// Whether the file at `path` has it; else the checksum that it has.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn check(&self, path: &Path) -> io::Result<Result<(), Self>> {
        let (got, same) = match self {
            Self::Sha256(want) => {
                let got = digest::<Sha256>(path)?;
                let same = got.starts_with(want);
                (Self::Sha256(got), same)
            }
            Self::Md5(want) => {
                let got = digest::<Md5>(path)?;
                let same = got == *want;
                (Self::Md5(got), same)
            }
        };
        Ok(if same { Ok(()) } else { Err(got) })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digits) if digits.len() < 64 => write!(f, "SHA-256 {digits}…"),
            Self::Sha256(digits) => write!(f, "SHA-256 {digits}"),
            Self::Md5(digits) => write!(f, "MD5 {digits}"),
        }
    }
}

/// Whether all of `text` is hex digits.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digest<D: Digest>(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (D::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_in_names_and_tags() {
        let sha = |s: &str| Some(Checksum::Sha256(s.into()));
        assert_eq!(Checksum::in_name("resnet18-f37072fd.pth"), sha("f37072fd"));
        assert_eq!(Checksum::in_name("model.safetensors"), None);
        assert_eq!(Checksum::in_name("vgg-16.pth"), None);
        let long = "0F".repeat(32);
        assert_eq!(Checksum::in_etag(&format!("\"{long}\"")), sha(&long.to_lowercase()));
        let md5 = "2cb95161c43110f7111970584f804107";
        assert_eq!(Checksum::in_etag(&format!("W/\"{md5}\"")), Some(Checksum::Md5(md5.into())));
        assert_eq!(Checksum::in_etag("\"5e3f-60\""), None);
    }

    #[test]
    fn checksums_are_the_published_functions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        // FIPS 180-4 and RFC 1321 give these of `abc`.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        assert_eq!(Checksum::Sha256(sha256.into()).check(&path).unwrap(), Ok(()));
        assert_eq!(Checksum::Sha256(sha256[..8].into()).check(&path).unwrap(), Ok(()));
        assert_eq!(Checksum::Md5(md5.into()).check(&path).unwrap(), Ok(()));
        let wrong = Checksum::Sha256("00000000".into()).check(&path).unwrap();
        assert_eq!(wrong, Err(Checksum::Sha256(sha256.into())));
    }
}
