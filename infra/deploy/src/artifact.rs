//! The zips of `make build`: what is in them, and by which digest they are kept.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// What Lambda takes: an unpacked program may not be larger.
const LARGEST: usize = 250 * 1024 * 1024;

/// One zip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The binary, e.g. `data-key`: one zip serves all its deployments.
    pub binary: String,
    /// Where the zip is.
    pub path: PathBuf,
    /// Bytes of the zip.
    pub size: u64,
    /// SHA-256 of the program inside, hexadecimal. The zip's own digest moves with the time of the build.
    pub digest: String,
    /// What it runs on, as Lambda names it: `arm64` or `x86_64`.
    pub architecture: &'static str,
}

/// Why a zip is none that can be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not there.
    Absent,
    /// It cannot be read, or is no zip.
    NoZip,
    /// It has no entry `bootstrap`, or one that is damaged.
    NoBootstrap,
    /// `bootstrap` is no 64-bit ELF program for a machine that Lambda has.
    NoProgram,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "is not built",
            Self::NoZip => "is no zip",
            Self::NoBootstrap => "holds no whole `bootstrap`",
            Self::NoProgram => "holds a `bootstrap` that is no Linux program for arm64 or x86_64",
        })
    }
}

impl std::error::Error for Unusable {}

impl Artifact {
    /// Reads `<folder>/<binary>/bootstrap.zip`.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn open(folder: &Path, binary: &str) -> Result<Self, Unusable> {
        let path = folder.join(binary).join("bootstrap.zip");
        let zip = match std::fs::read(&path) {
            Ok(zip) => zip,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unusable::Absent),
            Err(_) => return Err(Unusable::NoZip),
        };
        let program = entry(&zip, b"bootstrap")?;
        Ok(Self {
            binary: binary.to_owned(),
            path,
            size: zip.len() as u64,
            digest: sha256(&program),
            architecture: architecture(&program).ok_or(Unusable::NoProgram)?,
        })
    }
}

/// SHA-256, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One entry of a zip, unpacked (APPNOTE.TXT 6.3.10; no ZIP64, which a program below 4 GB does not need).
fn entry(zip: &[u8], name: &[u8]) -> Result<Vec<u8>, Unusable> {
    const END: &[u8] = b"PK\x05\x06";
    // The end record is 22 bytes and a comment of at most 65,535.
    let tail = zip.len().saturating_sub(22 + 65_535);
    let end = zip
        .get(tail..)
        .and_then(|tail| tail.windows(END.len()).rposition(|window| window == END))
        .map(|end| tail + end)
        .filter(|end| zip.len() >= end + 22)
        .ok_or(Unusable::NoZip)?;
    let entries = number(zip, end + 10, 2).ok_or(Unusable::NoZip)?;
    let mut at = number(zip, end + 16, 4).ok_or(Unusable::NoZip)?;
    for _ in 0..entries {
        if zip.get(at..at + 4) != Some(b"PK\x01\x02") {
            return Err(Unusable::NoZip);
        }
        let field = |offset, width| number(zip, at + offset, width).ok_or(Unusable::NoZip);
        let (method, packed, unpacked) = (field(10, 2)?, field(20, 4)?, field(24, 4)?);
        let (names, extras, comments, local) = (field(28, 2)?, field(30, 2)?, field(32, 2)?, field(42, 4)?);
        if zip.get(at + 46..at + 46 + names) != Some(name) {
            at += 46 + names + extras + comments;
            continue;
        }
        let skipped = number(zip, local + 26, 2).zip(number(zip, local + 28, 2));
        let (names, extras) = skipped.ok_or(Unusable::NoBootstrap)?;
        let start = local + 30 + names + extras;
        let bytes = zip.get(start..start.saturating_add(packed)).ok_or(Unusable::NoBootstrap)?;
        let bytes = match method {
            0 => bytes.to_vec(),
            8 => {
                miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, LARGEST).map_err(|_| Unusable::NoBootstrap)?
            }
            _ => return Err(Unusable::NoBootstrap),
        };
        return if bytes.len() == unpacked { Ok(bytes) } else { Err(Unusable::NoBootstrap) };
    }
    Err(Unusable::NoBootstrap)
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Of a 64-bit little-endian ELF file (`e_machine`, System V ABI).
fn architecture(program: &[u8]) -> Option<&'static str> {
    if program.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    match number(program, 18, 2)? {
        0xb7 => Some("arm64"),
        0x3e => Some("x86_64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zip with one entry, as `zipfile` of Python writes it.
    fn zip(name: &[u8], content: &[u8], time: u8, packed: bool) -> Vec<u8> {
        let data = if packed { miniz_oxide::deflate::compress_to_vec(content, 6) } else { content.to_vec() };
        let method = if packed { 8u16 } else { 0 };
        let mut header = vec![20, 0, 0, 0];
        header.extend(method.to_le_bytes());
        header.extend([time, 0, 0, 0, 0, 0, 0, 0]);
        header.extend((data.len() as u32).to_le_bytes());
        header.extend((content.len() as u32).to_le_bytes());
        header.extend((name.len() as u16).to_le_bytes());
        header.extend([0, 0]);
        let mut zip = b"PK\x03\x04".to_vec();
        zip.extend(&header);
        zip.extend(name);
        zip.extend(&data);
        let start = zip.len();
        zip.extend(b"PK\x01\x02\x14\x03");
        zip.extend(&header);
        zip.extend([0; 14]);
        zip.extend(name);
        let length = zip.len() - start;
        zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        zip.extend((length as u32).to_le_bytes());
        zip.extend((start as u32).to_le_bytes());
        zip.extend([0, 0]);
        zip
    }

    fn elf(machine: u8) -> Vec<u8> {
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(64, 0);
        program[18] = machine;
        program.extend(b"the program".repeat(40));
        program
    }

    fn opened(bytes: Option<Vec<u8>>) -> Result<Artifact, Unusable> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("token")).unwrap();
        if let Some(bytes) = bytes {
            std::fs::write(folder.path().join("token/bootstrap.zip"), bytes).unwrap();
        }
        Artifact::open(folder.path(), "token")
    }

    #[test]
    fn a_zip_is_known_by_its_program_and_not_by_the_time_of_its_build() {
        let first = opened(Some(zip(b"bootstrap", &elf(0xb7), 1, true))).unwrap();
        let second = opened(Some(zip(b"bootstrap", &elf(0xb7), 2, true))).unwrap();
        let stored = opened(Some(zip(b"bootstrap", &elf(0xb7), 3, false))).unwrap();
        assert_eq!(first.digest, second.digest);
        assert_eq!(first.digest, stored.digest);
        assert_eq!(first.digest, sha256(&elf(0xb7)));
        assert_eq!(first.architecture, "arm64");
        assert_eq!(opened(Some(zip(b"bootstrap", &elf(0x3e), 1, true))).unwrap().architecture, "x86_64");
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        assert_eq!(opened(None), Err(Unusable::Absent));
        assert_eq!(opened(Some(b"hello".to_vec())), Err(Unusable::NoZip));
        assert_eq!(opened(Some(zip(b"readme", &elf(0xb7), 1, true))), Err(Unusable::NoBootstrap));
        assert_eq!(opened(Some(zip(b"bootstrap", b"#!/bin/sh", 1, true))), Err(Unusable::NoProgram));
        assert_eq!(opened(Some(zip(b"bootstrap", &elf(0x08), 1, true))), Err(Unusable::NoProgram));
    }

    #[test]
    fn a_damaged_zip_is_refused_and_never_panics() {
        let whole = zip(b"bootstrap", &elf(0xb7), 1, true);
        for length in 0..whole.len() {
            assert!(opened(Some(whole[..length].to_vec())).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = opened(Some(damaged));
        }
    }
}
