use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use super::*;

const AIRLINES: &str = "carrier,name\nUA,United Air Lines Inc.\n";
const AIRPORTS: &str = "faa,name,lat,lon,alt,tz,dst,tzone\nIAH,Houston,29.98,-95.34,97,-6,A,NA\n";
const PLANES: &str = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\n\
                      N14228,NA,Fixed wing multi engine,BOEING,737-824,2,149,NA,Turbo-fan\n";
const WEATHER: &str = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour\n\
     EWR,2013,1,1,5,39.02,28.04,64.43,260,12.658,NA,0,1011.9,10,2013-01-01T10:00:00Z\n";
const FLIGHTS: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,\
                       tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n\
                       2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z\n\
                       2013,1,1,NA,600,NA,NA,700,NA,UA,7,NA,EWR,IAH,NA,1400,6,0,2013-01-01T11:00:00Z\n";

#[test]
fn the_embedded_data_are_built_once() {
    let place = Place::new();
    let first = place.load(&Source::Embedded).expect("builds");
    assert_eq!((first.built, first.flights), (true, 10_205));
    let second = place.load(&Source::Embedded).expect("is there");
    assert_eq!((second.built, second.flights), (false, 10_205));
    assert_eq!(place.files(), ["demo.db"]);
    for (table, rows) in
        [("airlines", 16), ("airports", 1458), ("planes", 3322), ("weather", 8362), ("flights", 10_205)]
    {
        assert_eq!(place.number(&format!("SELECT count(*) FROM {table}")), rows, "{table}");
    }
    assert_eq!(place.number("SELECT count(DISTINCT origin) FROM flights"), 3);
    assert_eq!(place.number("SELECT count(DISTINCT month * 100 + day) FROM flights"), 365);
}

#[test]
fn the_published_shape_is_read_and_types_are_kept() {
    let place = Place::new();
    let loaded = place.load(&place.archive(&published(FLIGHTS))).expect("builds");
    assert_eq!((loaded.built, loaded.flights), (true, 2));
    assert_eq!(place.number("SELECT count(*) FROM flights WHERE dep_delay IS NULL AND tailnum IS NULL"), 1);
    assert_eq!(place.number("SELECT sum(arr_delay) FROM flights"), 11);
    assert_eq!(place.number("SELECT count(*) FROM weather WHERE typeof(temp) = 'real' AND wind_gust IS NULL"), 1);
    assert_eq!(place.number("SELECT count(*) FROM airports WHERE tz = -6 AND tzone IS NULL"), 1);
}

#[test]
fn another_data_set_replaces_the_first() {
    let place = Place::new();
    place.load(&place.archive(&published(FLIGHTS))).expect("builds");
    assert_eq!(place.load(&Source::Embedded).map(|loaded| loaded.built).ok(), Some(true));
    assert_eq!(place.number("SELECT count(*) FROM flights"), 10_205);
}

#[test]
fn a_file_of_something_else_is_replaced() {
    let place = Place::new();
    std::fs::write(place.database(), "no database").expect("writes");
    assert_eq!(place.load(&Source::Embedded).map(|loaded| loaded.built).ok(), Some(true));
}

#[test]
fn a_wrong_archive_is_refused_and_changes_nothing() {
    let place = Place::new();
    place.load(&Source::Embedded).expect("builds");
    let bad_field = FLIGHTS.replace("1400,5", "far,5");
    let bad_header = FLIGHTS.replacen("dep_delay", "delay", 1);
    let short = FLIGHTS.replace(",5,15,2013-01-01T10:00:00Z", "");
    let whole = published(FLIGHTS);

    let refused = |bytes: &[u8]| place.load(&place.archive(bytes)).expect_err("refused");
    assert!(matches!(refused(b"no archive"), DataError::NotAnArchive { .. }));
    assert!(matches!(refused(&whole[..whole.len() / 2]), DataError::NotAnArchive { .. }));
    assert!(matches!(
        refused(&packed(&[("x/airlines.csv", AIRLINES.as_bytes())])),
        DataError::TableMissing { table: "airports", .. }
    ));
    assert!(matches!(refused(&published(&bad_header)), DataError::Header { table: "flights", .. }));
    assert!(matches!(refused(&published(&bad_field)), DataError::Row { table: "flights", line: 2, .. }));
    assert!(matches!(refused(&published(&short)), DataError::Row { table: "flights", line: 2, .. }));
    let missing = Source::Archive(place.0.path().join("missing.tar.gz"));
    assert!(matches!(place.load(&missing), Err(DataError::Read { .. })));

    assert_eq!(place.number("SELECT count(*) FROM flights"), 10_205);
    assert_eq!(place.files(), ["archive.tar.gz", "demo.db"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new();
    std::fs::write(place.0.path().join("file"), "").expect("writes");
    let under_a_file = place.0.path().join("file").join("demo.db");
    assert!(matches!(load(&under_a_file, &Source::Embedded, Progress::Hidden), Err(DataError::File { .. })));
}

/// A directory for one database.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("demo.db")
    }

    fn load(&self, source: &Source) -> Result<Loaded, DataError> {
        load(&self.database(), source, Progress::Hidden)
    }

    fn archive(&self, bytes: &[u8]) -> Source {
        let path = self.0.path().join("archive.tar.gz");
        std::fs::write(&path, bytes).expect("writes");
        Source::Archive(path)
    }

    fn number(&self, sql: &str) -> i64 {
        let database = Connection::open(self.database()).expect("opens");
        database.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("lists");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("lists").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

/// An archive in the shape of the published one, with these flights.
fn published(flights: &str) -> Vec<u8> {
    packed(&[
        ("n-0.0.3/README.md", b"readme"),
        ("n-0.0.3/n/data/airlines.csv", AIRLINES.as_bytes()),
        ("n-0.0.3/n/data/airports.csv", AIRPORTS.as_bytes()),
        ("n-0.0.3/n/data/planes.csv", PLANES.as_bytes()),
        ("n-0.0.3/n/data/weather.csv", WEATHER.as_bytes()),
        ("n-0.0.3/n/data/flights.csv.zip", &zipped(flights)),
    ])
}

fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).expect("packs");
    }
    archive.into_inner().and_then(GzEncoder::finish).expect("packs")
}

/// A zip file with one member, its sizes after the data, as the published one.
fn zipped(content: &str) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content.as_bytes()).expect("packs");
    let data = encoder.finish().expect("packs");
    let mut crc = flate2::Crc::new();
    crc.update(content.as_bytes());
    let sizes = [crc.sum(), data.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat();

    let mut zip =
        [&b"PK\x03\x04\x14\0\x08\0\x08\0"[..], &[0; 16], b"\x01\0\0\0f", &data, b"PK\x07\x08", &sizes].concat();
    let central = zip.len() as u32;
    zip.extend(b"PK\x01\x02\x14\0\x14\0\x08\0\x08\0\0\0\0\0");
    zip.extend(sizes);
    zip.extend([&b"\x01\0"[..], &[0; 16], b"f"].concat());
    let length = zip.len() as u32 - central;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend([length.to_le_bytes(), central.to_le_bytes()].concat());
    zip.extend([0, 0]);
    zip
}
