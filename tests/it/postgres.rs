//! The tests' own PostgreSQL server is what it says.

use groupcast_tests::Postgres;

#[test]
fn a_server_keeps_what_it_has_over_a_restart_and_a_kill_and_leaves_nothing_behind() {
    let mut server = Postgres::start();
    let url = server.database();
    server.query_in(&url, "create table a (x int); insert into a values (7)");
    server.stop();
    server.restart();
    assert_eq!(server.query_in(&url, "select x, 'b' from a"), "7|b");
    server.kill();
    server.restart();
    assert_eq!(server.query_in(&url, "select x from a"), "7");
    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists());
}
