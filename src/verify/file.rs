//! What concerns the whole file: SQLite's own checks, and what belongs to no aggregate.

use rusqlite::OptionalExtension;

use super::Finding;
use super::mend::Mend;
use crate::connection::Connection;
use crate::error::{Error, Result, rising};
use crate::limits::MAX_SAFE_INTEGER;

/// Lines that SQLite's check gives at most.
const MOST_LINES: usize = 1_000;

/// `PRAGMA integrity_check`: one finding for each damaged index, one for each other line. The pragma tells of a page that it
/// could not read as it tells of a damaged one: what it finds counts when it is found a second time.
pub(super) fn integrity(connection: &Connection) -> Result<Vec<Finding>> {
    let found = check(connection)?;
    if found.is_empty() { Ok(found) } else { check(connection) }
}

fn check(connection: &Connection) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let lines = match lines(connection, &MOST_LINES.to_string()) {
        Ok(lines) => lines,
        Err(error) if error.code() == "ERR_CORRUPT" => vec![error.to_string()],
        Err(error) if is_unprepared(&error) => by_table(connection, &mut found)?,
        Err(error) => return Err(error),
    };
    let only_indexes = lines.iter().all(|line| index_of(line).is_some());
    let mut indexes: Vec<&str> = Vec::new();
    for line in &lines {
        let Some(index) = index_of(line) else {
            let message = format!(
                "SQLite finds the file damaged: {line}. Restore it from a copy, or replay the log into a new one."
            );
            found.push(Finding::error("file-damaged", message));
            continue;
        };
        if indexes.contains(&index) {
            continue;
        }
        indexes.push(index);
        let message = format!(
            "The index \"{index}\" does not hold what its table holds ({line}): queries through it miss rows, \
             and findings beside this one may come of it. verify({{repair: true}}) builds it anew where only indexes are damaged."
        );
        let finding = Finding::error("index-damaged", message);
        found.push(if only_indexes { finding.mended_by(Mend::Index(index.to_owned())) } else { finding });
    }
    Ok(found)
}

/// SQLite cannot even begin: an index or a generated column of the program calls a function that only it has.
fn is_unprepared(error: &Error) -> bool {
    matches!(error, Error::Sqlite { sqlite_code, .. } if sqlite_code == "SQLITE_ERROR")
}

/// The same check table by table, so that one which cannot be checked keeps no other from it.
fn by_table(connection: &Connection, found: &mut Vec<Finding>) -> Result<Vec<String>> {
    let mut statement =
        connection.cached("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name")?;
    let tables = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for table in tables {
        match lines(connection, &format!("\"{}\"", table.replace('"', "\"\""))) {
            Ok(lines) => all.extend(lines),
            Err(error) if error.code() == "ERR_CORRUPT" => all.push(error.to_string()),
            Err(error) if is_unprepared(&error) => {
                let message = format!(
                    "SQLite cannot check the table \"{table}\" of this program here: {error}. Check it with \
                     PRAGMA integrity_check on a connection that has what it names."
                );
                found.push(Finding::warning("table-unchecked", message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn lines(connection: &Connection, of: &str) -> Result<Vec<String>> {
    let mut statement = connection.sqlite().prepare(&format!("PRAGMA main.integrity_check({of})"))?;
    let mut rows = statement.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        lines.extend(text.lines().map(str::to_owned).filter(|line| line != "ok" && !line.starts_with("***")));
    }
    Ok(lines)
}

/// The index that a line of the check complains of, and nothing else.
fn index_of(line: &str) -> Option<&str> {
    let (before, name) =
        line.split_once(" missing from index ").or_else(|| line.split_once("wrong # of entries in index "))?;
    (before.is_empty() || before.starts_with("row ")).then_some(name)
}

/// `PRAGMA foreign_key_check`.
pub(super) fn foreign_keys(connection: &Connection) -> Result<Vec<Finding>> {
    match broken_references(connection) {
        Ok(found) => Ok(found),
        Err(error) if error.is_busy() => Err(error),
        Err(error) => {
            let message = format!("SQLite cannot check the foreign keys of this program's tables: {error}.");
            Ok(vec![Finding::error("foreign-key", message)])
        }
    }
}

fn broken_references(connection: &Connection) -> Result<Vec<Finding>> {
    let mut statement = connection.cached("PRAGMA main.foreign_key_check")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| found.len() < MOST_LINES) {
        let (table, rowid, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let which = rowid.map_or_else(|| "A row".to_owned(), |rowid| format!("Row {rowid}"));
        let message = format!(
            "{which} of table \"{table}\" refers to a row of \"{parent}\" that is not there. \
             Both are tables of this program, which has to decide what belongs there."
        );
        found.push(Finding::error("foreign-key", message));
    }
    Ok(found)
}

/// The next key after `after` that anything is held of.
pub(super) fn next_aggregate(connection: &Connection, after: i64) -> Result<Option<i64>> {
    let mut statement = connection.cached(
        "SELECT min(key) FROM (
           SELECT min(key) AS key FROM event_sequence WHERE key > ?1
           UNION ALL SELECT min(aggregate) FROM event WHERE aggregate > ?1 AND aggregate <= ?2
           UNION ALL SELECT min(aggregate) FROM event_segment WHERE aggregate > ?1 AND aggregate <= ?2
           UNION ALL SELECT min(aggregate) FROM event_gap WHERE aggregate > ?1 AND aggregate <= ?2)",
    )?;
    let next: Option<i64> = statement.query_row((after, i64::MAX), |row| row.get(0))?;
    next.map(|next| rising("event_sequence", &after, next)).transpose()
}

/// Rows whose aggregate is no number, which no walk meets.
pub(super) fn strays(connection: &Connection) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for table in ["event", "event_segment", "event_gap"] {
        let sql = format!("SELECT 1 FROM {table} WHERE aggregate > ?1 LIMIT 1");
        let stray: Option<i64> = connection.cached(&sql)?.query_row([i64::MAX], |row| row.get(0)).optional()?;
        if stray.is_some() {
            let message = format!(
                "A row of \"{table}\" has something for its aggregate that is no number. Nothing reads it; somebody else \
                 than syncline has written it."
            );
            found.push(Finding::error("orphan", message));
        }
    }
    Ok(found)
}

/// Positions would be given twice.
pub(super) fn position_floor(used: i64, highest: i64) -> Finding {
    let message = format!(
        "Position {highest} has been used, but the file says that none above {used} was: the next events would get \
         positions that others have, and readers by position would miss them. verify({{repair: true}}) raises the floor."
    );
    let finding = Finding::error("position-floor", message);
    // Past that there is nothing to raise it to: whatever says so is damaged itself.
    if highest < MAX_SAFE_INTEGER { finding.mended_by(Mend::Floor(highest)) } else { finding }
}
