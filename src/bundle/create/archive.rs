//! Tar archives, entry by entry.
//!
//! The crate tar reads the headers. What stands before an entry (names and attributes of any
//! length) is read here: that crate takes as much of it into memory as the archive claims there
//! is, and cuts attributes at line breaks.

use crate::config::input::quoted;
use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// The most that may stand before one entry, in bytes; as Go's archive/tar, which containerd uses.
const MOST_BEFORE: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file; its bytes are read from the archive.
    File,
    /// A folder.
    Folder,
    /// A symbolic link to this.
    Link(OsString),
    /// One more name of this path's file.
    HardLink(OsString),
    /// A FIFO.
    Fifo,
    /// A character device: major and minor.
    Character(u32, u32),
    /// A block device: major and minor.
    Block(u32, u32),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as it stands there.
    pub path: OsString,
    /// What it is.
    pub kind: Kind,
    /// Permissions, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed: seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

/// What stands before an entry, of which it takes the place in the header.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, i64)>,
    xattrs: Vec<(OsString, Vec<u8>)>,
    bytes: u64,
}

/// An archive that is being read. Reading it gives the current entry's bytes.
pub struct Archive<R> {
    source: R,
    /// Bytes of the current entry that have not been read.
    left: u64,
    /// What fills its last block.
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Reads an archive from its beginning.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    /// What it is read from.
    pub fn into_source(self) -> R {
        self.source
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no archive, and for one that ends in the middle;
    /// `Unimplemented` for kinds of entries that a container's root cannot have.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut before = Before::default();
        loop {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(header.entry_size(), &header.as_old().size)?;
            match header.entry_type() {
                EntryType::GNULongName => before.path = Some(self.name(&mut before, size)?),
                EntryType::GNULongLink => before.link = Some(self.name(&mut before, size)?),
                EntryType::XHeader => {
                    let text = self.before(&mut before, size)?;
                    before.read(&text)?;
                }
                EntryType::XGlobalHeader => {
                    let mut global = Before::default();
                    let text = self.before(&mut global, size)?;
                    check_global(&text)?;
                }
                _ => return self.entry(&header, before, size).map(Some),
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        self.skip()?;
        let mut header = Header::new_old();
        let mut got = 0;
        while got < BLOCK {
            let rest = header.as_mut_bytes().get_mut(got..).unwrap_or_default();
            match self.source.read(rest) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(cut()),
                Ok(size) => got += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as blanks.
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(Error::invalid("it is not a tar archive, or it is damaged"));
        }
        Ok(Some(header))
    }

    fn entry(&mut self, header: &Header, before: Before, size: u64) -> Result<Entry> {
        let path = before.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = match before.link {
            Some(link) => link,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let link = OsString::from_vec(link);
        let shown = quoted(&String::from_utf8_lossy(&path));
        let device = || -> Result<(u32, u32)> {
            // Both kinds of headers have the numbers at the same place; older ones have none.
            let field = |at: usize| header.as_bytes().get(at..at + 8).unwrap_or_default();
            let part = |value: io::Result<Option<u32>>, at: usize| {
                let value = value.map(|number| number.unwrap_or_default().into());
                number(value, field(at)).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
            };
            Ok((part(header.device_major(), 329)?, part(header.device_minor(), 337)?))
        };
        let kind = match header.entry_type() {
            // Archives from before there was a type for folders.
            EntryType::Regular if path.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link(link),
            EntryType::Link => Kind::HardLink(link),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::GNUSparse => return Err(sparse(&shown)),
            other => {
                let kind = char::from(other.as_byte()).escape_debug().to_string();
                return Err(Error::unimplemented(format!(
                    "{shown} is an entry of the unknown type '{kind}'"
                )));
            }
        };
        // Whatever their size says, nothing follows the others.
        let size = if kind == Kind::File { before.size.unwrap_or(size) } else { 0 };
        self.left = size;
        self.padding = padding(size);
        let id = |which: &str, said: Option<u64>, field: io::Result<u64>, raw: &[u8]| {
            let id = said.map_or_else(|| number(field, raw), Ok)?;
            // The last number is the one by which the kernel is told to change nothing.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
                Error::invalid(format!("{shown}: the {which} {id} is more than there are"))
            })
        };
        let uid = id("uid", before.uid, header.uid(), &header.as_old().uid)?;
        let gid = id("gid", before.gid, header.gid(), &header.as_old().gid)?;
        let modified = match before.modified {
            Some(modified) => modified,
            None => (header.mtime().unwrap_or_default().cast_signed(), 0),
        };
        let mode = number(header.mode().map(u64::from), &header.as_old().mode)?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or_default();
        let path = OsString::from_vec(path);
        Ok(Entry { path, kind, mode, uid, gid, modified, xattrs: before.xattrs })
    }

    /// What stands before an entry.
    fn before(&mut self, before: &mut Before, size: u64) -> Result<Vec<u8>> {
        before.bytes = before.bytes.saturating_add(size);
        if before.bytes > MOST_BEFORE {
            return Err(Error::invalid(format!(
                "the names and attributes of one entry are {} bytes, more than the limit of 1 MiB",
                before.bytes
            )));
        }
        self.left = size;
        self.padding = padding(size);
        let mut bytes = Vec::new();
        (&mut *self).take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn name(&mut self, before: &mut Before, size: u64) -> Result<Vec<u8>> {
        let mut name = self.before(before, size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// Goes to the end of the current entry.
    fn skip(&mut self) -> Result<()> {
        let (left, padding) = (self.left, self.padding);
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.source).take(left), &mut io::sink())? < left {
            return Err(cut());
        }
        // umoci does not fill the last block of all.
        io::copy(&mut (&mut self.source).take(padding), &mut io::sink())?;
        Ok(())
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        if part.is_empty() {
            return Ok(0);
        }
        let size = self.source.read(part)?;
        if size == 0 {
            return Err(io::Error::other("it ends in the middle of a file"));
        }
        self.left -= size as u64;
        Ok(size)
    }
}

impl Before {
    /// Reads an extended header (POSIX.1-2001, pax, "Extended Header"): lines of a length, a
    /// keyword and a value, which may hold anything.
    fn read(&mut self, text: &[u8]) -> Result<()> {
        for (key, value) in records(text)? {
            let number = || {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                number.ok_or_else(|| bad_record(key))
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.modified = Some(time(value).ok_or_else(|| bad_record(key))?),
                _ if key.starts_with(b"GNU.sparse.") => return Err(sparse("it")),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        let name = OsStr::from_bytes(name).to_owned();
                        self.xattrs.push((name, value.to_vec()));
                    }
                    // The rest says what is of no use here: who packed it, and when.
                }
            }
        }
        Ok(())
    }
}

fn records(mut text: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let parsed = (|| {
            let blank = text.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(text.get(..blank)?).ok()?.parse().ok()?;
            let (record, rest) = text.split_at_checked(length)?;
            let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some(((record.get(..equals)?, record.get(equals + 1..)?), rest))
        })();
        let Some((record, rest)) = parsed else {
            return Err(Error::invalid("an extended header in it is broken"));
        };
        records.push(record);
        text = rest;
    }
    Ok(records)
}

/// A global header may say who packed the archive; what it says of all files is nowhere in use.
fn check_global(text: &[u8]) -> Result<()> {
    for (key, _) in records(text)? {
        if key != b"comment" {
            let key = quoted(&String::from_utf8_lossy(key));
            return Err(Error::unimplemented(format!(
                "its global header sets {key} for all entries, which is not supported"
            )));
        }
    }
    Ok(())
}

/// `[-]seconds[.fraction]`
fn time(value: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = nine.parse().ok()?;
    match (seconds.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((whole, nanoseconds)),
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// A number of a header; what is blank is 0, as every tar has it.
fn number(value: io::Result<u64>, field: &[u8]) -> Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { value.map_err(wrong) }
}

fn wrong(error: io::Error) -> Error {
    Error::invalid(format!("a header in it is broken: {error}"))
}

fn bad_record(key: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key);
    Error::invalid(format!("an extended header in it has a broken {}", quoted(&key)))
}

fn sparse(what: &str) -> Error {
    Error::unimplemented(format!(
        "{what} is packed as a sparse file, which is not supported: pack it without --sparse"
    ))
}

fn cut() -> Error {
    Error::invalid("it ends in the middle of an entry")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = archive.next_entry()? {
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes)?;
            all.push((entry, bytes));
        }
        Ok(all)
    }

    fn header(kind: EntryType, path: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_cksum();
        header
    }

    #[test]
    fn names_and_attributes_of_any_length_are_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(100) + "f";
        let value = b"with\na line break".as_slice();
        builder
            .append_pax_extensions([
                ("SCHILY.xattr.user.x", value),
                ("mtime", b"-1.25"),
                ("uid", b"70000"),
            ])
            .unwrap();
        builder.append(&header(EntryType::Regular, "a", 2), b"hi".as_slice()).unwrap();
        let mut gnu = Header::new_gnu();
        gnu.set_size(1);
        gnu.set_mode(0o4755);
        builder.append_data(&mut gnu, &long, b"x".as_slice()).unwrap();
        let found = entries(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(found[0].1, b"hi");
        let first = &found[0].0;
        assert_eq!(first.xattrs, [("user.x".into(), value.to_vec())]);
        assert_eq!((first.uid, first.gid, first.modified), (70000, 2, (-2, 750_000_000)));
        let second = &found[1].0;
        assert_eq!((second.path.to_str(), second.mode), (Some(long.as_str()), 0o4755));
    }

    #[test]
    fn claims_are_not_believed() {
        let one = |header: &Header| entries(header.as_bytes()).unwrap_err().to_string();
        assert!(one(&header(EntryType::XHeader, "x", 1 << 40)).contains("1 MiB"));
        assert!(one(&header(EntryType::GNULongName, "x", 1 << 40)).contains("1 MiB"));
        assert!(one(&header(EntryType::Regular, "x", 1 << 30)).contains("middle"));
        assert!(one(&header(EntryType::GNUSparse, "x", 0)).contains("sparse"));
        assert!(one(&header(EntryType::new(b'V'), "x", 0)).contains("unknown type 'V'"));
        let mut broken = header(EntryType::Regular, "x", 0);
        broken.as_mut_bytes()[0] = b'y';
        assert!(one(&broken).contains("not a tar"));
        let unfilled = [header(EntryType::Regular, "x", 2).as_bytes().as_slice(), b"hi"].concat();
        assert_eq!(entries(&unfilled).unwrap()[0].1, b"hi");
        assert!(entries(b"no tar at all").unwrap_err().to_string().contains("middle"));
        let mut nobody = header(EntryType::Regular, "x", 0);
        nobody.set_uid(0xffff_ffff);
        nobody.set_cksum();
        assert!(one(&nobody).contains("4294967295"));
        assert!(records(b"7 a=b\n").is_err() && records(b"6 a=b\n").is_ok());
        assert!(check_global(b"6 a=b\n").is_err());
    }
}
