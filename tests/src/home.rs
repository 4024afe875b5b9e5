//! `Home`: a folder of its own for each gateway under test, with a configuration and the database it asks.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

/// Sockets and groups, no consumers.
pub const BARE: &str = r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"
"#;

/// Named queries over the small database, and consumers that run them.
pub const JOBS: &str = r#"
[server]
listen = "127.0.0.1:0"
data_dir = "data"

[jobs]
retry_base = "10ms"
retry_max = "50ms"

[source.shop]
kind = "sqlite"
path = "source.db"

[[query]]
id = 1
name = "numbers"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < :count) select i, i * i as square from n"
params.count = { type = "integer", min = 1, max = 100000, default = 10 }

[[query]]
id = 2
name = "endless"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000000) select count(*) as n from n"
timeout = "10m"

[[query]]
id = 3
name = "broken"
source = "shop"
sql = "select abs(-9223372036854775807 - min(1, count(*))) as too_big from flights"

[[query]]
id = 4
name = "kinds"
source = "shop"
sql = "select missing, whole, fraction, words, yes from kinds order by rowid"

[[query]]
id = 5
name = "hurried"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000000000) select count(*) as n from n"
timeout = "200ms"

[[query]]
id = 6
name = "capped"
source = "shop"
sql = "select origin, dest from flights order by origin, dest"
max_rows = 3

[[query]]
id = 7
name = "worst_routes"
source = "shop"
sql = "select origin, dest, avg(delay) as mean_delay from flights where origin = :origin group by dest order by mean_delay desc"
params.origin = { type = "text", enum = ["JFK", "LGA", "EWR"], default = "JFK" }

[[query]]
id = 8
name = "seconds"
source = "shop"
sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < :count) select count(*) as n from n"
params.count = { type = "integer", min = 1, max = 1000000000 }
timeout = "60s"

[[query]]
id = 9
name = "drawn"
source = "shop"
sql = "select random() as lot"
cache = "10m"

[[consumer]]
name = "queries"
group = "my_group"
type = "execute_query"
run = "query"
concurrency = 2
timeout = "10m"

[[consumer]]
name = "reports"
group = "my_group"
type = "generate_report"
run = "report"

[[consumer]]
name = "watched"
group = "watched.*"
type = "execute_query"
run = "query"
mode = "both"

[[consumer]]
name = "fleeting"
group = "fleeting"
type = "execute_query"
run = "query"
durability = "memory"

[[consumer]]
name = "kernel"
group = "kernel"
type = "execute_query"
run = "query"
durability = "os"
"#;

/// What `worst_routes` finds for JFK, worst first.
pub const WORST_OF_JFK: [(&str, f64); 3] = [("ORD", 40.0), ("LAX", 15.5), ("BOS", -3.0)];

/// A folder that is removed with its last user.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// A folder with this `groupcast.toml` and the database `source.db`.
    pub fn new(config: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().expect("the system has a folder for temporary files") };
        home.write("groupcast.toml", config);
        build_source(&home.path().join("source.db"));
        home
    }

    /// The folder, in which the gateway runs.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its `groupcast.toml`.
    pub fn config(&self) -> PathBuf {
        self.path().join("groupcast.toml")
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the temporary folder takes files");
    }
}

fn build_source(path: &Path) {
    let database = Connection::open(path).expect("a new file opens");
    database
        .execute_batch(
            "create table flights (origin text, dest text, delay real);
             insert into flights values
                 ('JFK', 'LAX', 10), ('JFK', 'LAX', 21), ('JFK', 'BOS', -3), ('JFK', 'ORD', 40),
                 ('LGA', 'ORD', 7), ('EWR', 'SFO', 1);
             create table kinds (missing, whole integer, fraction real, words text, yes integer);
             insert into kinds values
                 (null, 9007199254740993, 0.1, 'Ünïcode \"quoted\", comma' || char(10) || 'line', 1),
                 (null, -9223372036854775808, -1e300, '', 0);",
        )
        .expect("the tables are made");
}
