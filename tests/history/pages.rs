//! Pages while the files change, and what a page may be.

use sluicegate::ledger::history::{Error, Filter, Reader};
use sluicegate::names::SessionId;

use crate::days::{self, id, row};
use crate::{DAY, DAY_MS, HOUR_MS, files, ledger};

fn ids(reader: &Reader, filter: &Filter) -> Vec<u128> {
    reader.sessions(filter, None, 1_000).unwrap().records.iter().map(|record| record.id.as_u128()).collect()
}

#[test]
fn pages_neither_repeat_nor_hide_anything_while_sessions_open_and_close() {
    let rows: Vec<_> = (0..100).map(|n| row(n, DAY - DAY_MS + n * HOUR_MS / 2, None)).collect();
    let (folder, reader) = ledger(&rows);
    let (mut seen, mut after, mut n) = (Vec::new(), None, 1_000);
    loop {
        let page = reader.sessions(&Filter::default(), after, 7).unwrap();
        seen.extend(page.records.iter().map(|record| record.id.as_u128()));
        // One that was listed ends, one that was not ends, and one more opens.
        for at in [seen.len() - 1, 0] {
            let mut ended = rows[99 - at].clone();
            ended.closed_ms = Some(DAY + 2 * DAY_MS);
            days::write(folder.path(), [&ended]);
        }
        n += 1;
        days::write(folder.path(), [&row(n, DAY + 2 * DAY_MS, None)]);
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<u128> = rows.iter().rev().map(|row| row.id).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_session_is_found_by_its_id_in_the_file_of_its_day() {
    let mut one = row(1, DAY + 5, Some(DAY + 3 * DAY_MS));
    one.query = Some("token=hunter2".into());
    one.labels = Some(r#"{"plan":"gold"}"#.into());
    let (_folder, reader) = ledger(&[one, row(2, DAY + DAY_MS, None)]);
    let find = |id| reader.session(SessionId::parse(&days::text(id)).unwrap()).unwrap();
    let found = find(id(DAY + 5, 1)).unwrap();
    assert_eq!(found.id.to_string(), days::text(id(DAY + 5, 1)));
    assert_eq!((found.closed_ms, found.shard, found.connection), (Some(DAY + 3 * DAY_MS), 1, 1 << 48 | 2));
    assert_eq!(found.labels.as_deref(), Some(r#"{"plan":"gold"}"#));
    assert!(!format!("{found:?}").contains("hunter2"), "the query string stays in the file");
    assert_eq!(find(id(DAY + 5, 2)), None);
    assert_eq!(find(id(0, 2)), None);
    assert_eq!(find(u128::MAX), None);
}

#[test]
fn of_a_day_with_several_files_the_last_one_holds() {
    let mut before = row(1, DAY, None);
    before.user = Some("ann".into());
    let mut after = before.clone();
    after.closed_ms = Some(DAY + HOUR_MS);
    after.generation = 1;
    let other = row(2, DAY + 1, None);
    let (_folder, reader) = ledger(&[before, after, other]);
    let open = Filter { open: Some(true), ..Filter::default() };
    assert_eq!(ids(&reader, &open), [id(DAY + 1, 2)]);
    assert_eq!(ids(&reader, &Filter::default()), [id(DAY + 1, 2), id(DAY, 1)]);
    let ann = Filter { users: vec!["ann".into()], ..Filter::default() };
    assert_eq!(reader.sessions(&ann, None, 10).unwrap().records[0].closed_ms, Some(DAY + HOUR_MS));
    // Carried over into a later time it is once, and only as long as the last file says.
    let later = Filter { from_ms: Some(DAY + 2 * HOUR_MS), ..Filter::default() };
    assert_eq!(ids(&reader, &later), [id(DAY + 1, 2)]);
    assert_eq!(
        reader.session(SessionId::parse(&days::text(id(DAY, 1))).unwrap()).unwrap().unwrap().closed_ms,
        Some(DAY + HOUR_MS)
    );
}

#[test]
fn a_range_has_whoever_was_there_in_it_from_however_long_ago() {
    let rows = [
        row(1, DAY - 40 * DAY_MS, Some(DAY + HOUR_MS)),
        row(2, DAY - 40 * DAY_MS, Some(DAY)),
        row(3, DAY - HOUR_MS, Some(DAY + 1)),
        row(4, DAY + 10, Some(DAY + 20)),
        row(5, DAY + HOUR_MS, None),
        row(6, DAY - 3 * DAY_MS, None),
    ];
    let (_folder, reader) = ledger(&rows);
    let range = |from, to| ids(&reader, &Filter { from_ms: Some(from), to_ms: Some(to), ..Filter::default() });
    assert_eq!(range(DAY, DAY + HOUR_MS), [rows[3].id, rows[2].id, rows[5].id, rows[0].id]);
    assert_eq!(range(DAY + 20, DAY + 30), [rows[5].id, rows[0].id]);
    assert_eq!(range(DAY + HOUR_MS, DAY + HOUR_MS + 1), [rows[4].id, rows[5].id]);
    assert_eq!(range(DAY, DAY), []);
    assert_eq!(range(DAY + HOUR_MS, DAY), []);
    assert_eq!(range(0, 1), []);
    assert_eq!(range(u64::MAX - 1, u64::MAX), [rows[4].id, rows[5].id]);
}

#[test]
fn a_name_that_is_on_very_many_streams_is_found_all_the_same() {
    let rows: Vec<_> = (0..600)
        .map(|n| {
            let mut one = row(n, DAY + n, Some(DAY + HOUR_MS));
            one.app = format!("tenant{n}");
            one.stream = if n % 3 == 0 { "main".into() } else { "other".into() };
            one
        })
        .collect();
    let (_folder, reader) = ledger(&rows);
    let on = |stream: &str| ids(&reader, &Filter { streams: vec![stream.into()], ..Filter::default() });
    assert_eq!(on("main").len(), 200);
    assert_eq!(on("other").len(), 400);
    assert_eq!(on("tenant7/other"), [rows[7].id]);
    assert_eq!(on("default/tenant9/main"), [rows[9].id]);
    assert_eq!(on("default/tenant9/other"), []);
    assert_eq!(on(&"a/".repeat(300)), []);
}

#[test]
fn files_that_come_go_or_are_empty_are_no_trouble() {
    let (folder, reader) = ledger(&[row(1, DAY, None)]);
    std::fs::write(folder.path().join("2026-11-21.db"), []).unwrap();
    std::fs::write(folder.path().join("2026-11-22.db-wal"), b"x").unwrap();
    rusqlite::Connection::open(folder.path().join("2026-11-23.db"))
        .unwrap()
        .execute_batch("CREATE TABLE x (y)")
        .unwrap();
    rusqlite::Connection::open(folder.path().join("state.db")).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    let all = Filter::default();
    assert_eq!(ids(&reader, &all), [id(DAY, 1)]);
    days::write(folder.path(), [&row(2, DAY + 5 * DAY_MS, None)]);
    assert_eq!(ids(&reader, &all), [id(DAY + 5 * DAY_MS, 2), id(DAY, 1)]);
    // A file that was removed is not read from a connection that is still open, and another of its name is another.
    std::fs::remove_file(folder.path().join("2026-11-20.db")).unwrap();
    let _ = std::fs::remove_file(folder.path().join("2026-11-20.db-wal"));
    let _ = std::fs::remove_file(folder.path().join("2026-11-20.db-shm"));
    days::write(folder.path(), [&row(3, DAY, None)]);
    assert_eq!(ids(&reader, &all), [id(DAY + 5 * DAY_MS, 2), id(DAY, 3)]);
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(ids(&reader, &all), []);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let (folder, reader) = ledger(&[row(1, DAY, None), row(2, DAY + DAY_MS, None)]);
    std::fs::write(folder.path().join("2026-11-22.db"), vec![0x5a; 8_192]).unwrap();
    match reader.sessions(&Filter::default(), None, 10) {
        Err(Error::File { file, .. }) => assert_eq!(file, "2026-11-22.db"),
        other => panic!("{other:?}"),
    }
    // What lies before it is still to be had.
    let before = Filter { to_ms: Some(DAY + DAY_MS), ..Filter::default() };
    assert_eq!(ids(&reader, &before), [id(DAY, 1)]);
}

#[test]
fn a_folder_that_is_only_to_be_read_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, _) = ledger(&[row(1, DAY, None)]);
    let mode = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    let reader = Reader::patient(files(&folder));
    let found = ids(&reader, &Filter::default());
    mode(0o700);
    assert_eq!(found, [id(DAY, 1)]);
}
