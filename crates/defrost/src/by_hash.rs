//! torchvision's files under other names: their hash, whose beginning their published name has, tells them.
//!
//! The second weights of a network have the names and shapes of the first and other preprocessing; nothing but the values
//! tells them apart.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use defrost_zoo::Weights;
use sha2::{Digest, Sha256};

/// Bytes that are hashed at a time.
const PART: usize = 1 << 20;

/// The one of `published` that the file at `path` is; `None` if it is none of them or cannot be read.
pub(crate) fn find<'a>(path: &Path, published: Vec<&'a Weights>) -> Option<&'a Weights> {
    let (mut file, mut hash, mut part) = (File::open(path).ok()?, Sha256::new(), vec![0; PART]);
    loop {
        match file.read(&mut part).ok()? {
            0 => break,
            n => hash.update(&part[..n]),
        }
    }
    let hash = hash.finalize();
    published.into_iter().find(|w| w.torchvision_hash().is_some_and(|begin| hash.starts_with(&begin)))
}

#[cfg(test)]
mod tests {
    use defrost_zoo::{Arch, Source};

    use super::*;

    #[test]
    fn a_file_is_known_by_what_is_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("renamed.pth");
        // The SHA-256 of `abc` begins with ba7816bf (FIPS 180-2, appendix B.1).
        std::fs::write(&path, "abc").unwrap();
        let v1 = Weights::find(Arch::Resnet50, "imagenet1k_v1").unwrap();
        let mut v2 = Weights::find(Arch::Resnet50, "imagenet1k_v2").unwrap().clone();
        v2.source = Source::Torchvision { file: "resnet50-ba7816bf.pth" };
        assert_eq!(find(&path, vec![v1, &v2]), Some(&v2));
        assert_eq!(find(&path, vec![v1]), None);
        assert_eq!(find(&temp.path().join("nowhere.pth"), vec![&v2]), None);
    }
}
