//! What a failed constraint is about. SQLite names the columns of most, the text of a CHECK without its table, and of a
//! foreign key nothing. The rest is found here, after the failure, so that what succeeds pays nothing for it: what the
//! statement writes, as the authorizer sees it prepared once more, and the foreign keys of those tables.

use crate::connection::{Change, Connection, Written};
use crate::error::{Error, Result};

/// Tables of more rows are not searched for what points nowhere.
const SEARCHED_ROWS: i64 = 2_000;

/// What SQLite says of every foreign key.
const FOREIGN_KEY: &str = "FOREIGN KEY constraint failed";

/// Names table and constraint of a constraint error of `sql`, as far as they can be found; any other error stays as it is.
/// `again` runs the statement once more, which tells several foreign keys apart; what it does is taken back.
pub fn explain(
    connection: &Connection,
    sql: &str,
    error: Error,
    again: Option<&mut dyn FnMut() -> Result<()>>,
) -> Error {
    let Error::Constraint { ref message, ref sqlite_code, ref constraint, .. } = error else { return error };
    // What cannot be found out must not hide the failure itself.
    let named = connection.written(sql).and_then(|written| {
        if message == FOREIGN_KEY {
            let restrict = sqlite_code == "SQLITE_CONSTRAINT_TRIGGER";
            foreign_key(connection, &written, restrict, again)
        } else {
            let table = table_of(connection, &written, sqlite_code, constraint.as_deref())?;
            let checks = sqlite_code == "SQLITE_CONSTRAINT_CHECK";
            let message = table.as_ref().filter(|_| checks).map(|table| format!("{message} (table \"{table}\")"));
            Ok(Named { message, table, constraint: None })
        }
    });
    with_names(error, named)
}

/// The same for a COMMIT that failed on a deferred foreign key, while its transaction is still open.
pub fn explain_commit(connection: &Connection, error: Error) -> Error {
    if !error.is_constraint() {
        return error;
    }
    let named = deferred(connection);
    with_names(error, named)
}

/// What was found; the rest stays as SQLite said it.
#[derive(Default)]
struct Named {
    message: Option<String>,
    table: Option<String>,
    constraint: Option<String>,
}

fn with_names(error: Error, named: Result<Named>) -> Error {
    match (error, named) {
        (Error::Constraint { message, sqlite_code, table, constraint }, Ok(named)) => Error::Constraint {
            message: named.message.unwrap_or(message),
            sqlite_code,
            table: named.table.or(table),
            constraint: named.constraint.or(constraint),
        },
        (error, _) => error,
    }
}

/// The table that has the constraint: the one that SQLite's text begins with, or the only one that can have it.
fn table_of(
    connection: &Connection,
    written: &Written,
    sqlite_code: &str,
    constraint: Option<&str>,
) -> Result<Option<String>> {
    let mut tables: Vec<(&str, &str)> =
        written.changes.iter().map(|change| (&*change.database, &*change.table)).collect();
    tables.sort_unstable();
    tables.dedup();
    let constraint = constraint.unwrap_or_default();
    let named = tables
        .iter()
        .filter(|(_, table)| constraint.strip_prefix(table).is_some_and(|columns| columns.starts_with('.')));
    if let Some((_, table)) = named.max_by_key(|(_, table)| table.len()) {
        return Ok(Some((*table).to_owned()));
    }
    if tables.len() > 1 && (sqlite_code == "SQLITE_CONSTRAINT_CHECK" || sqlite_code == "SQLITE_CONSTRAINT_UNIQUE") {
        // A CHECK is known by its name or text; an index on expressions by its name.
        let index = constraint.strip_prefix("index '").and_then(|rest| rest.strip_suffix('\''));
        let mut kept = Vec::new();
        for (database, table) in tables {
            let sql = match index {
                None => "SELECT 1 FROM {db}.sqlite_schema WHERE type = 'table' AND name = ?1 AND instr(sql, ?2) > 0",
                Some(_) => "SELECT 1 FROM {db}.sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND name = ?2",
            };
            let mut statement = connection.sqlite().prepare(&sql.replace("{db}", &quoted(database)))?;
            if statement.exists((table, index.unwrap_or(constraint)))? {
                kept.push((database, table));
            }
        }
        tables = kept;
    }
    Ok(match tables[..] {
        [(_, table)] => Some(table.to_owned()),
        _ => None,
    })
}

/// A foreign key, as its table declares it.
#[derive(Clone, PartialEq, Eq)]
struct ForeignKey {
    database: String,
    child: String,
    /// SQLite's number for it, within its table.
    id: i64,
    columns: Vec<String>,
    parent: String,
    referred: Vec<String>,
    on_update: String,
    on_delete: String,
}

impl ForeignKey {
    fn text(&self) -> String {
        format!("{}({}) → {}({})", self.child, self.columns.join(", "), self.parent, self.referred.join(", "))
    }
}

fn foreign_key(
    connection: &Connection,
    written: &Written,
    restrict: bool,
    again: Option<&mut dyn FnMut() -> Result<()>>,
) -> Result<Named> {
    if written.changes.is_empty() {
        // It writes nothing itself: a raw COMMIT, or the RELEASE that ends a transaction.
        return deferred(connection);
    }
    let keys = candidates(connection, written, restrict)?;
    if keys.len() > 1
        && let Some(again) = again
        && let Ok(Some(violated)) = narrowed(connection, written, &keys, again)
    {
        return Ok(named(&violated, " and ", ""));
    }
    Ok(named(&keys, " or ", ""))
}

fn named(keys: &[ForeignKey], between: &str, more: &str) -> Named {
    let Some(first) = keys.first() else { return Named::default() };
    let text = keys.iter().map(ForeignKey::text).collect::<Vec<_>>().join(between);
    let same = keys.iter().all(|key| key.child == first.child);
    Named {
        message: Some(format!("{FOREIGN_KEY}: {text}{more}")),
        table: same.then(|| first.child.clone()),
        constraint: Some(text),
    }
}

/// The foreign keys that such changes can violate. `restrict`: the failure is that of an ON … RESTRICT, which SQLite tells
/// apart from the others.
fn candidates(connection: &Connection, written: &Written, restrict: bool) -> Result<Vec<ForeignKey>> {
    let mut keys: Vec<ForeignKey> = Vec::new();
    let action = if restrict { "RESTRICT" } else { "NO ACTION" };
    let mut add = |more: Vec<ForeignKey>, wanted: &dyn Fn(&ForeignKey) -> bool| {
        for key in more {
            if wanted(&key) && !keys.contains(&key) {
                keys.push(key);
            }
        }
    };
    for change in &written.changes {
        let Change { database, table, column, insert } = change;
        let touches = |columns: &[String]| {
            column.as_ref().is_none_or(|column| columns.iter().any(|each| each.eq_ignore_ascii_case(column)))
        };
        let deletes = column.is_none() && !insert;
        if !deletes && !restrict {
            add(foreign_keys(connection, database, table)?, &|key| touches(&key.columns));
        }
        if !insert || written.replaces {
            // An action that changes the children's rows is a change of its own.
            add(referring(connection, database, table)?, &|key| {
                touches(&key.referred) && (if column.is_none() { &key.on_delete } else { &key.on_update }) == action
            });
        }
    }
    Ok(keys)
}

/// The foreign keys of a table.
fn foreign_keys(connection: &Connection, database: &str, table: &str) -> Result<Vec<ForeignKey>> {
    let mut listed = connection.cached(
        "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1, ?2) ORDER BY id, seq",
    )?;
    let mut rows = listed.query((table, database))?;
    let mut keys: Vec<ForeignKey> = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        if keys.last().is_none_or(|key| key.id != id) {
            let (parent, on_update, on_delete): (String, String, String) = (row.get(1)?, row.get(4)?, row.get(5)?);
            // Where no column is named, it is the primary key.
            let referred = if row.get::<_, Option<String>>(3)?.is_none() {
                primary_key(connection, database, &parent)?
            } else {
                Vec::new()
            };
            let (database, child) = (database.to_owned(), table.to_owned());
            keys.push(ForeignKey { database, child, id, columns: Vec::new(), parent, referred, on_update, on_delete });
        }
        if let Some(key) = keys.last_mut() {
            key.columns.push(row.get(2)?);
            key.referred.extend(row.get::<_, Option<String>>(3)?);
        }
    }
    // SQLite counts them backwards.
    keys.reverse();
    Ok(keys)
}

fn primary_key(connection: &Connection, database: &str, table: &str) -> Result<Vec<String>> {
    let mut columns = connection.cached("SELECT name FROM pragma_table_info(?1, ?2) WHERE pk > 0 ORDER BY pk")?;
    Ok(columns.query_map((table, database), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// The foreign keys that refer to a table.
fn referring(connection: &Connection, database: &str, table: &str) -> Result<Vec<ForeignKey>> {
    let mut keys = Vec::new();
    for child in tables(connection, database, "")? {
        let of_child = foreign_keys(connection, database, &child)?;
        keys.extend(of_child.into_iter().filter(|key| key.parent.eq_ignore_ascii_case(table)));
    }
    Ok(keys)
}

/// The tables of a database whose declaration holds a text.
fn tables(connection: &Connection, database: &str, text: &str) -> Result<Vec<String>> {
    let sql = "SELECT name FROM {db}.sqlite_schema WHERE type = 'table' AND (?1 = '' OR instr(lower(sql), ?1) > 0)";
    let mut listed = connection.cached(&sql.replace("{db}", &quoted(database)))?;
    Ok(listed.query_map([text], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Which of several keys the statement violates: it runs again in a savepoint where foreign keys are only counted, and
/// what then points nowhere is looked for. `None` where that cannot be told.
fn narrowed(
    connection: &Connection,
    written: &Written,
    keys: &[ForeignKey],
    again: &mut dyn FnMut() -> Result<()>,
) -> Result<Option<Vec<ForeignKey>>> {
    let sqlite = connection.sqlite();
    // Outside a transaction it would wait for the lock; a function of the program is not called more often than it knows.
    if sqlite.is_autocommit() || calls_program(connection, written)? {
        return Ok(None);
    }
    sqlite.execute_batch("SAVEPOINT syncline_look; PRAGMA defer_foreign_keys = ON")?;
    let looked = again().and_then(|()| {
        let last: Vec<_> = keys.iter().filter(|key| last_dangles(connection, key).unwrap_or(false)).cloned().collect();
        let rows: Result<Vec<_>> =
            if last.is_empty() { keys.iter().map(|key| dangling(connection, key)).collect() } else { Ok(Vec::new()) };
        Ok((last, rows?))
    });
    // First the pragma, which forgets what was counted, then the savepoint, which knows what was counted before it.
    let undone =
        sqlite.execute_batch("PRAGMA defer_foreign_keys = OFF; ROLLBACK TO syncline_look; RELEASE syncline_look");
    if undone.is_err() {
        // What ran again must not be committed: the whole transaction goes.
        let _ = sqlite.execute_batch("ROLLBACK");
    }
    let (mut violated, rows) = looked?;
    for (key, after) in keys.iter().zip(rows) {
        if after > dangling(connection, key)? {
            violated.push(key.clone());
        }
    }
    Ok(Some(violated).filter(|violated| !violated.is_empty()))
}

fn calls_program(connection: &Connection, written: &Written) -> Result<bool> {
    let mut own =
        connection.cached("SELECT 1 FROM pragma_function_list WHERE name = ?1 COLLATE NOCASE AND builtin = 0")?;
    for function in &written.functions {
        if own.exists([function])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many rows of the key's table point nowhere; `None` where there are too many rows to look at.
fn dangling(connection: &Connection, key: &ForeignKey) -> Result<Option<i64>> {
    let sqlite = connection.sqlite();
    let child = format!("{}.{}", quoted(&key.database), quoted(&key.child));
    let rows: i64 = sqlite.query_row(
        &format!("SELECT count(*) FROM (SELECT 1 FROM {child} LIMIT ?1)"),
        [SEARCHED_ROWS + 1],
        |row| row.get(0),
    )?;
    if rows > SEARCHED_ROWS {
        return Ok(None);
    }
    let sql = "SELECT count(*) FROM pragma_foreign_key_check(?1, ?2) WHERE fkid = ?3";
    Ok(Some(sqlite.query_row(sql, (&key.child, &key.database, key.id), |row| row.get(0))?))
}

/// Whether the row that was inserted last points nowhere by this key.
fn last_dangles(connection: &Connection, key: &ForeignKey) -> Result<bool> {
    let (database, child, parent) = (quoted(&key.database), quoted(&key.child), quoted(&key.parent));
    let columns: Vec<_> = key.columns.iter().map(|column| format!("c.{}", quoted(column))).collect();
    let present: Vec<_> = columns.iter().map(|column| format!("{column} IS NOT NULL")).collect();
    let equal: Vec<_> = key
        .referred
        .iter()
        .zip(&columns)
        .map(|(referred, column)| format!("p.{} = {column}", quoted(referred)))
        .collect();
    let sql = format!(
        "SELECT 1 FROM {database}.{child} AS c WHERE c.rowid = last_insert_rowid() AND {} \
         AND NOT EXISTS (SELECT 1 FROM {database}.{parent} AS p WHERE {})",
        present.join(" AND "),
        equal.join(" AND "),
    );
    Ok(connection.cached(&sql)?.exists([])?)
}

/// The first row that points nowhere, in the open transaction: what a COMMIT refuses. Tables that declare something
/// deferred are searched first.
fn deferred(connection: &Connection) -> Result<Named> {
    let sqlite = connection.sqlite();
    if sqlite.is_autocommit() {
        return Ok(Named::default());
    }
    let mut check = sqlite.prepare("SELECT fkid FROM pragma_foreign_key_check(?1, 'main') LIMIT 1")?;
    for text in ["deferr", "references"] {
        for table in tables(connection, "main", text)? {
            let Some(id) = check.query_map([&table], |row| row.get::<_, i64>(0))?.next().transpose()? else { continue };
            let keys = foreign_keys(connection, "main", &table)?.into_iter().filter(|key| key.id == id);
            return Ok(named(&keys.collect::<Vec<_>>(), "", ", which is deferred until COMMIT"));
        }
    }
    Ok(Named::default())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
