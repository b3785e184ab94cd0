//! Damaged and hostile files: always an error or some tensors, never a panic, never much memory.

use std::fs;
use std::io::{Cursor, Read, Write};

use defrost_weights::{Error, NamedTensors, Result, detect_bytes, keras, lasagne, npy, pytorch, safetensors};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::fixture;

type Parser = fn(&[u8]) -> Result<NamedTensors>;

fn one_npy(bytes: &[u8]) -> Result<NamedTensors> {
    npy::read_bytes(bytes).map(|t| [("x".to_owned(), t)].into_iter().collect())
}

const CASES: &[(&str, Parser)] = &[
    ("torch.safetensors", safetensors::read_bytes),
    ("be_f64_fortran.npy", one_npy),
    ("stored.npz", npy::read_npz_bytes),
    ("deflated.npz", npy::read_npz_bytes),
    ("keras_model.h5", keras::read_hdf5_bytes),
    ("keras2_weights.h5", keras::read_hdf5_bytes),
    ("keras2_latest.h5", keras::read_hdf5_bytes),
    ("keras_only.weights.h5", keras::read_weights_bytes),
    ("keras_model.keras", keras::read_archive_bytes),
    ("state.pth", pytorch::read_bytes),
    ("state_legacy.pth", pytorch::read_bytes),
    ("wrapped.pth", pytorch::read_bytes),
    ("wrapped_legacy.pth", pytorch::read_bytes),
    ("module.pth", pytorch::read_bytes),
    ("fastai_stage1.pth", pytorch::read_bytes),
    ("recipe_py2.pkl", lasagne::read_bytes),
    ("recipe_py2_protocol0.pkl", lasagne::read_bytes),
    ("recipe_py3_protocol5.pkl", lasagne::read_bytes),
];

/// splitmix64: the same damage in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    /// One to four injuries: flipped bits, hostile numbers, blocks moved or cut out.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => {
                    let hostile = [u64::MAX, i64::MAX as u64, 1 << 40, 1 << 31, 0xffff, 0, 1][self.below(7)];
                    let width = [2, 4, 8][self.below(3)].min(bytes.len() - at);
                    bytes[at..at + width].copy_from_slice(&hostile.to_le_bytes()[..width]);
                }
                3 => bytes.truncate(at),
                4 => {
                    let (from, n) = (self.below(bytes.len()), self.below(64));
                    let block = bytes[from..(from + n).min(bytes.len())].to_vec();
                    let end = (at + block.len()).min(bytes.len());
                    bytes[at..end].copy_from_slice(&block[..end - at]);
                }
                _ => drop(bytes.drain(at..(at + self.below(16)).min(bytes.len()))),
            }
        }
    }
}

/// What was read is whole: as many numbers as the shape says, and it can be written.
fn sound(result: Result<NamedTensors>) {
    match result {
        Ok(tensors) => {
            tensors.iter().for_each(|(_, t)| assert_eq!(t.len(), t.shape().iter().product::<usize>()))
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
}

/// The most memory this process has had, in MiB, where the system says so.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? / 1024)
}

fn archive(entries: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let count = zip.len();
    let one = |i| {
        let mut file = zip.by_index(i).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (file.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(one).collect()
}

#[test]
fn every_truncation_is_an_error_or_harmless() {
    for (name, parse) in CASES {
        let bytes = fs::read(fixture(name)).unwrap();
        for end in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
            sound(parse(&bytes[..end]));
            let _ = detect_bytes(&bytes[..end]);
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let rounds: usize = std::env::var("DEFROST_FUZZ_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(400);
    let mut random = Random(20_261_121);
    for (name, parse) in CASES {
        let whole = fs::read(fixture(name)).unwrap();
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            random.damage(&mut bytes);
            sound(parse(&bytes));
            let _ = detect_bytes(&bytes);
        }
    }
    if let Some(peak) = peak() {
        assert!(peak < 1536, "{peak} MiB");
    }
}

/// Checksums in a zip archive hide its entries from plain damage, so they are damaged before it is put together.
#[test]
fn damaged_entries_of_archives_never_panic() {
    let mut random = Random(7);
    for (name, parse) in CASES {
        let whole = fs::read(fixture(name)).unwrap();
        if !whole.starts_with(b"PK") {
            continue;
        }
        let whole = entries(&whole);
        for _ in 0..300 {
            let mut entries = whole.clone();
            let hit = random.below(entries.len());
            // The pickle is where the structure is.
            let hit = entries
                .iter()
                .position(|(n, _)| n.ends_with("data.pkl") && !hit.is_multiple_of(4))
                .unwrap_or(hit);
            random.damage(&mut entries[hit].1);
            sound(parse(&archive(&entries, CompressionMethod::Stored)));
        }
    }
}

#[test]
fn an_archive_that_unpacks_to_far_more_than_it_is_is_refused() {
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (280000000,), }";
    let npy = [b"\x93NUMPY\x01\x00\x46\x00", format!("{header:69}\n").as_bytes()].concat();
    let hit = |name: &str, entry: &str| {
        let mut all = entries(&fs::read(fixture(name)).unwrap());
        let hit = all.iter_mut().find(|(n, _)| n.ends_with(entry)).unwrap();
        hit.1.clear();
        all
    };
    type Entries = Vec<(String, Vec<u8>)>;
    let cases: [(Entries, &str, Parser); 4] = [
        (vec![("arr_0.npy".into(), npy)], "arr_0.npy", npy::read_npz_bytes),
        (hit("keras_model.keras", "model.weights.h5"), "model.weights.h5", keras::read_archive_bytes),
        (hit("state.pth", "data/0"), "data/0", pytorch::read_bytes),
        (hit("state.pth", "data.pkl"), "data.pkl", pytorch::read_bytes),
    ];
    for (mut all, entry, parse) in cases {
        let bytes = &mut all.iter_mut().find(|(n, _)| n.ends_with(entry)).unwrap().1;
        bytes.resize(bytes.len() + 280_000_000, 0);
        let bomb = archive(&all, CompressionMethod::Deflated);
        drop(all);
        assert!(bomb.len() < 2_000_000);
        let error = parse(&bomb).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{entry}: {error}");
    }
}

/// Groups that hold themselves, read as each kind of Keras file, whole and damaged.
#[test]
fn circles_in_hdf5_end() {
    let whole = fs::read(fixture("cycle.weights.h5")).unwrap();
    let mut random = Random(11);
    for parse in [keras::read_weights_bytes as Parser, keras::read_hdf5_bytes] {
        assert!(parse(&whole).is_err());
        for _ in 0..400 {
            let mut bytes = whole.clone();
            random.damage(&mut bytes);
            sound(parse(&bytes));
        }
    }
}

/// An index may only name files beside it, whatever its text.
#[test]
fn damaged_indexes_open_nothing_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("inside");
    fs::create_dir(&folder).unwrap();
    let shard = fs::read(fixture("torch.safetensors")).unwrap();
    fs::write(temp.path().join("outside.safetensors"), &shard).unwrap();
    fs::write(folder.join("a.safetensors"), &shard).unwrap();
    let name = safetensors::read_bytes(&shard).unwrap().names().next().unwrap().to_owned();
    let read = |file: &str| {
        let text = serde_json::json!({ "metadata": {}, "weight_map": { name.as_str(): file } }).to_string();
        fs::write(folder.join("m.safetensors.index.json"), &text).unwrap();
        (safetensors::read(folder.join("m.safetensors.index.json")), text)
    };
    let (all, text) = read("a.safetensors");
    assert_eq!(all.unwrap().len(), 1);
    let outside = temp.path().join("outside.safetensors");
    for file in ["../outside.safetensors", "./../outside.safetensors", outside.to_str().unwrap(), "..", "."] {
        assert!(read(file).0.unwrap_err().to_string().contains("beside the index"), "{file}");
    }
    for file in ["", "a.safetensors\0", "m.safetensors.index.json"] {
        assert!(read(file).0.is_err(), "{file:?}");
    }
    let mut random = Random(13);
    for _ in 0..400 {
        let mut bytes = text.clone().into_bytes();
        random.damage(&mut bytes);
        fs::write(folder.join("m.safetensors.index.json"), &bytes).unwrap();
        sound(safetensors::read(folder.join("m.safetensors.index.json")));
    }
}

#[test]
fn deep_and_circular_pickles_are_errors() {
    let error = |bytes: &[u8]| lasagne::read_bytes(bytes).unwrap_err().to_string();
    // A list in a list in a list …
    let deep = [&b"]"[..], &b"]".repeat(100_000), &b"a".repeat(100_000), b"."].concat();
    assert!(error(&deep).contains("nested"), "{}", error(&deep));
    // A dict that is its own value.
    assert!(error(b"}q\0K\x01h\0s.").contains("nested"));
    // Forty lists, each twice in the next: 2^40 paths.
    let mut doubled = b"]".to_vec();
    for i in 0..30_u8 {
        doubled.extend_from_slice(&[
            b'q', i, b']', b'h', i, b'a', b'h', i, b'a', b'r', i, 1, 0, 0, b'0', b'j', i, 1, 0, 0,
        ]);
    }
    doubled.push(b'.');
    assert!(error(&doubled).contains("limit"), "{}", error(&doubled));
}

#[test]
fn a_tensor_larger_than_its_storage_is_refused() {
    let whole = entries(&fs::read(fixture("state.pth")).unwrap());
    let with = |from: &[u8], to: &[u8]| {
        let mut entries = whole.clone();
        let pickle = &mut entries.iter_mut().find(|(n, _)| n.ends_with("data.pkl")).unwrap().1;
        let at = pickle.windows(from.len()).position(|w| w == from).unwrap();
        pickle.splice(at..at + from.len(), to.iter().copied());
        pytorch::read_bytes(&archive(&entries, CompressionMethod::Stored)).unwrap_err()
    };
    // The shape (4, 3, 3, 3) of the first convolution, as (K 4, K 3, K 3, K 3).
    let shape = b"(K\x04K\x03K\x03K\x03t";
    let one_more = with(shape, b"(K\x05K\x03K\x03K\x03t").to_string();
    assert!(one_more.contains("`conv1.weight`") && one_more.contains("storage"), "{one_more}");
    let huge = with(shape, b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7fK\x03t");
    assert!(matches!(huge, Error::TooLarge { .. }), "{huge}");
    let negative = with(shape, b"(J\xff\xff\xff\xffK\x03K\x03K\x03t");
    assert!(matches!(negative, Error::Malformed { .. }), "{negative}");
}
