//! A file's bytes on their way: counted, bounded, hashed, and unpacked.

use super::progress::Bar;
use super::stop::Stop;
use crate::error::{Context, Error, Result};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256, Sha512};
use std::io::{self, BufRead, Read};

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// A digest as image-spec writes it (descriptor.md, "Digests").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// Takes one from outside.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but sha256 and sha512 in lower-case hexadecimal.
    pub fn parse(text: &str) -> Result<Self> {
        let found = text.split_once(':').and_then(|(algorithm, hex)| {
            let (algorithm, length) = match algorithm {
                "sha256" => (Algorithm::Sha256, 64),
                "sha512" => (Algorithm::Sha512, 128),
                _ => return None,
            };
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (hex.len() == length && hex.bytes().all(digit))
                .then(|| Self { algorithm, hex: hex.to_owned() })
        });
        found.ok_or_else(|| {
            let text = crate::config::input::quoted(text);
            Error::invalid(format!("digest {text}: wanted sha256: or sha512: and as many digits"))
        })
    }

    /// Where a layout has what it is the digest of.
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.algorithm.name(), self.hex)
    }
}

enum Hasher {
    None,
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Bytes that are counted, and hashed where a digest is expected of them.
pub struct Measured<'a, R> {
    source: R,
    count: u64,
    /// More than this is an error that says so in these words.
    most: u64,
    too_much: String,
    hasher: Hasher,
    expected: Option<Digest>,
    bar: Option<Bar>,
    stop: &'a Stop,
}

impl<'a, R: Read> Measured<'a, R> {
    /// Measures `source`, of which `most` bytes may come; `too_much` is said of more.
    pub fn new(source: R, most: u64, too_much: String, stop: &'a Stop) -> Self {
        let (hasher, expected) = (Hasher::None, None);
        Self { source, count: 0, most, too_much, hasher, expected, bar: None, stop }
    }

    /// Expects a digest of all of it.
    #[must_use]
    pub fn expecting(mut self, digest: Option<Digest>) -> Self {
        self.hasher = match digest.as_ref().map(|digest| digest.algorithm) {
            None => Hasher::None,
            Some(Algorithm::Sha256) => Hasher::Sha256(Sha256::new()),
            Some(Algorithm::Sha512) => Hasher::Sha512(Sha512::new()),
        };
        self.expected = digest;
        self
    }

    /// Shows how far it is.
    #[must_use]
    pub fn shown(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// How many bytes have come.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads to the end, and checks the digest.
    ///
    /// # Errors
    /// `InvalidArgument` when it is another one, and what reading says.
    pub fn finish(mut self) -> Result<R> {
        io::copy(&mut self, &mut io::sink())?;
        let hex = match self.hasher {
            Hasher::None => None,
            Hasher::Sha256(hasher) => Some(hex(&hasher.finalize())),
            Hasher::Sha512(hasher) => Some(hex(&hasher.finalize())),
        };
        if let (Some(hex), Some(expected)) = (hex, &self.expected)
            && hex != expected.hex
        {
            return Err(Error::invalid(format!(
                "it does not have the digest {expected} but {}:{hex}: it is damaged or was \
                 changed",
                expected.algorithm.name()
            )));
        }
        Ok(self.source)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<R: Read> Read for Measured<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check().map_err(io::Error::other)?;
        let size = self.source.read(buffer)?;
        let read = buffer.get(..size).unwrap_or_default();
        self.count += read.len() as u64;
        if self.count > self.most {
            return Err(io::Error::other(self.too_much.clone()));
        }
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Sha256(hasher) => hasher.update(read),
            Hasher::Sha512(hasher) => hasher.update(read),
        }
        if let Some(bar) = &self.bar {
            bar.add(size as u64);
        }
        Ok(size)
    }
}

/// Bytes that may be compressed, as they were before.
pub enum Plain<R: BufRead> {
    /// Nothing to do.
    AsIs(R),
    /// RFC 1952, several members one after another too.
    Gzip(Box<MultiGzDecoder<R>>),
    /// RFC 8878, several frames one after another too.
    Zstd(Box<Frames<R>>),
}

impl<R: BufRead> Plain<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// `Unimplemented` for other compressions, by name.
    pub fn open(mut source: R) -> Result<Self> {
        let head = source.fill_buf().context(|| "read")?;
        let unknown = |name: &str| {
            Err(Error::unimplemented(format!(
                "it is compressed with {name}, which is not supported: unpack it, or use gzip or \
                 zstd"
            )))
        };
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(source)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Ok(Self::Zstd(Box::new(Frames::new(source))))
            }
            [0xfd, b'7', b'z', b'X', b'Z', ..] => unknown("xz"),
            [b'B', b'Z', b'h', ..] => unknown("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => unknown("lz4"),
            _ => Ok(Self::AsIs(source)),
        }
    }

    /// What it was read from.
    pub fn into_source(self) -> R {
        match self {
            Self::AsIs(source) => source,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(frames) => frames.source,
        }
    }
}

impl<R: BufRead> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::AsIs(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(frames) => frames.read(buffer),
        }
    }
}

/// The frames of a zstd file, one after another, with those left out that are to be skipped.
pub struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), inside: false }
    }

    /// Enters the next frame; `false` at the end.
    fn enter(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.inside = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.inside && !self.enter()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            let size = self.decoder.read(buffer)?;
            if size > 0 || buffer.is_empty() {
                return Ok(size);
            }
            let said = self.decoder.get_checksum_from_data();
            if said.is_some() && said != self.decoder.get_calculated_checksum() {
                return Err(io::Error::other("a zstd frame's checksum is wrong: it is damaged"));
            }
            self.inside = false;
        }
    }
}

/// A buffer of the size in which files are read here.
pub fn piece() -> Vec<u8> {
    vec![0; PIECE]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// `zstd` of "hello\n" and "world\n", by zstd 1.5, with checksums.
    const HELLO: &[u8] = b"\x28\xb5\x2f\xfd\x04\x58\x31\0\0hello\n";

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Plain::open(bytes).unwrap().read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_compressed_is_told_by_its_first_bytes() {
        let gzip = |text: &[u8]| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        };
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, level);
        let skip = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let all = [skip.clone(), zstd(b"one "), skip, zstd(b"two")].concat();
        assert_eq!(read(&all).unwrap(), b"one two");
        let mut broken = gzip(b"one");
        broken.truncate(15);
        assert!(read(&broken).is_err());
        let mut broken = zstd(b"one two three");
        broken.truncate(broken.len() - 6);
        assert!(read(&broken).is_err());
        assert!(read(&HELLO[..8]).is_err());
        for (head, name) in [(b"\xfd7zXZ\0".as_slice(), "xz"), (b"BZh9", "bzip2")] {
            let error = Plain::open(head).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_stream_is_bounded_and_its_digest_checked() {
        let stop = Stop::on_signals().unwrap();
        let digest = |text: &str| Digest::parse(&format!("sha256:{text}")).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let measure = |bytes: &'static [u8], most| {
            Measured::new(bytes, most, "too much".to_owned(), &stop).expecting(Some(digest(empty)))
        };
        measure(b"", 0).finish().unwrap();
        let error = measure(b"x", 1).finish().unwrap_err().to_string();
        assert!(error.contains("does not have the digest sha256:e3b0"), "{error}");
        assert!(measure(b"xy", 1).finish().unwrap_err().to_string().contains("too much"));
        for wrong in ["sha256:", "sha256:../../x", "md5:00", "sha256:E3B0", "e3b0", ""] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
