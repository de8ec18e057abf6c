//! Whether older tables can be adopted. Everything here only looks.

use rusqlite::types::ValueRef;

use super::event::Row;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::schema::{self, OLDER};

/// Columns that a table must have, and those that it may have.
type Columns = (&'static [&'static str], &'static [&'static str]);

const EVENT: Columns = (&["id", "aggregate_id", "seq", "type", "data"], &["created"]);
const SEQUENCE: Columns = (&["aggregate_id", "seq"], &["owner_id"]);

/// Names that adoption needs for itself.
const RESERVED: [&str; 5] =
    ["event_older", "event_sequence_older", "event_older_aggregate_seq", "event_adoption", "event_adoption_finding"];

/// Events that are looked at, at most, before anything is touched.
const SAMPLES: i64 = 64;

/// So many events that can all not be adopted mean that the tables hold something else.
const ENOUGH_SAMPLES: i64 = 10;

/// `ERR_FOREIGN_SCHEMA` with the reason where the older tables cannot be adopted.
pub fn check(connection: &Connection) -> Result<()> {
    let refuse = |reason: String| Err(Error::NotAdoptable { path: connection.path().to_owned(), reason }.into());
    for (table, (required, optional)) in OLDER.into_iter().zip([EVENT, SEQUENCE]) {
        if let Some(reason) = misshapen(connection, table, required, optional)? {
            return refuse(reason);
        }
    }
    for name in RESERVED {
        if exists(connection, name)? {
            return refuse(format!("adoption needs the name \"{name}\", which something else in the file has"));
        }
    }
    let triggers = names(
        connection,
        "SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) IN ('event', 'event_sequence')",
    )?;
    if let Some(trigger) = triggers.first() {
        return refuse(format!("the trigger \"{trigger}\" stands on it, and would end with it; drop it first"));
    }
    if let Some(table) = table_with_triggers_on_it(connection)? {
        return refuse(format!("a trigger of \"{table}\" uses its tables, and would fail without them; drop it first"));
    }
    if let Some(reason) = reference(connection)? {
        return refuse(reason);
    }
    sample(connection)
}

/// Whether the older events have times.
pub fn has_column(connection: &Connection, table: &str, column: &str) -> Result<bool> {
    Ok(columns(connection, table)?.iter().any(|(name, _)| name == column))
}

/// The views that read older tables.
pub fn views(connection: &Connection) -> Result<Vec<String>> {
    let mut views = names(connection, "SELECT name FROM main.sqlite_schema WHERE type = 'view' ORDER BY name")?;
    // One that cannot be prepared does not work now either.
    views.retain(|view| touches(connection, &format!("SELECT * FROM main.{}", quoted(view))));
    Ok(views)
}

/// Names and declared types of a table's own columns; what is generated holds nothing of its own.
fn columns(connection: &Connection, table: &str) -> Result<Vec<(String, String)>> {
    let mut statement = connection
        .sqlite()
        .prepare("SELECT lower(name), upper(type) FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0")?;
    let columns = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(columns.collect::<rusqlite::Result<_>>()?)
}

fn misshapen(connection: &Connection, table: &str, required: &[&str], optional: &[&str]) -> Result<Option<String>> {
    let (kind, without_rowid): (String, bool) = connection.sqlite().query_row(
        "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND lower(name) = ?1",
        [table],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if kind != "table" || without_rowid {
        return Ok(Some(format!("\"{table}\" is no ordinary table with rowids")));
    }
    let columns = columns(connection, table)?;
    if let Some(missing) = required.iter().find(|name| !columns.iter().any(|(column, _)| column == *name)) {
        return Ok(Some(format!("\"{table}\" has no column \"{missing}\"")));
    }
    let known = |name: &str| required.contains(&name) || optional.contains(&name);
    if let Some((column, _)) = columns.iter().find(|(column, _)| !known(column)) {
        let reason = format!("\"{table}\" has a column \"{column}\", for which this log has no place");
        return Ok(Some(reason));
    }
    // Numbers that are stored as text stand in another order (https://sqlite.org/datatype3.html#determination_of_column_affinity).
    let is_text = |declared: &str| {
        !declared.contains("INT") && ["CHAR", "CLOB", "TEXT"].iter().any(|part| declared.contains(part))
    };
    if columns.iter().any(|(name, declared)| name == "seq" && is_text(declared)) {
        return Ok(Some(format!("the column \"seq\" of \"{table}\" holds text")));
    }
    Ok(None)
}

fn exists(connection: &Connection, name: &str) -> Result<bool> {
    Ok(connection.sqlite().prepare("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = ?1")?.exists([name])?)
}

fn names(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = connection.sqlite().prepare(sql)?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Whether a statement uses the older tables, which have names of ours, itself or by a view or a trigger.
fn touches(connection: &Connection, sql: &str) -> bool {
    connection.effects(sql).is_ok_and(|effects| effects.touches_log)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table or view of the application whose triggers use the older tables. SQLite compiles them with the statements.
fn table_with_triggers_on_it(connection: &Connection) -> Result<Option<String>> {
    let tables = names(connection, "SELECT DISTINCT tbl_name FROM main.sqlite_schema WHERE type = 'trigger'")?;
    for table in tables {
        let name = format!("main.{}", quoted(&table));
        let sets: Vec<String> = columns(connection, &table)?
            .iter()
            .map(|(column, _)| format!("{column} = {column}", column = quoted(column)))
            .collect();
        let statements = [
            format!("INSERT INTO {name} DEFAULT VALUES"),
            format!("UPDATE {name} SET {}", sets.join(", ")),
            format!("DELETE FROM {name}"),
        ];
        if statements.iter().any(|sql| touches(connection, sql)) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Why references from the application's tables would no longer hold. Those to `event_sequence (aggregate_id)` do.
fn reference(connection: &Connection) -> Result<Option<String>> {
    let mut statement = connection.sqlite().prepare(
        "SELECT tables.name, lower(reference.\"table\"), lower(reference.\"to\"),
                (SELECT count(*) FROM pragma_foreign_key_list(tables.name, 'main') AS other WHERE other.id = reference.id)
         FROM main.sqlite_schema AS tables, pragma_foreign_key_list(tables.name, 'main') AS reference
         WHERE tables.type = 'table' AND lower(tables.name) NOT IN ('event', 'event_sequence')
           AND lower(reference.\"table\") IN ('event', 'event_sequence')",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (child, parent, to): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let alone = row.get::<_, i64>(3)? == 1;
        if !(parent == "event_sequence" && to.as_deref() == Some("aggregate_id") && alone) {
            return Ok(Some(format!(
                "\"{child}\" refers to \"{parent}\" by a foreign key that the new tables cannot carry: \
                 only event_sequence (aggregate_id) can be referred to"
            )));
        }
    }
    Ok(None)
}

/// Looks at some events all over the table. Where none of many can be adopted, it is better to say so than to move them all
/// aside.
fn sample(connection: &Connection) -> Result<()> {
    let sqlite = connection.sqlite();
    let (first, last): (Option<i64>, Option<i64>) =
        sqlite.query_row("SELECT min(rowid), max(rowid) FROM main.event", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
    let created = if has_column(connection, "event", "created")? { "created" } else { "NULL" };
    let mut statement = sqlite.prepare(&format!(
        "SELECT rowid, seq, id, type, data, {created}, aggregate_id FROM main.event WHERE rowid > ?1 ORDER BY rowid LIMIT 1"
    ))?;
    let (mut after, mut count, mut reasons) = (first.saturating_sub(1), 0, Vec::new());
    let step = (last.saturating_sub(first) / SAMPLES).max(1);
    while count < SAMPLES {
        let mut rows = statement.query([after])?;
        let Some(row) = rows.next()? else { break };
        count += 1;
        after = row.get::<_, i64>(0)?.saturating_add(step - 1);
        let aggregate = matches!(row.get_ref(6)?, ValueRef::Text(text) if super::is_aggregate_id(text));
        match Row::of(row)?.event() {
            Ok(_) if aggregate => return Ok(()),
            Ok(_) => reasons.push("its aggregate_id is no text".to_owned()),
            Err(reason) => reasons.push(reason),
        }
    }
    if count < ENOUGH_SAMPLES {
        return Ok(());
    }
    Err(Error::NotAdoptable {
        path: connection.path().to_owned(),
        reason: format!("of {count} events looked at, none can be: of the first, {}", reasons[0]),
    }
    .into())
}

/// Whether the file holds older tables that nobody has begun to adopt.
pub fn untouched(connection: &Connection) -> Result<bool> {
    Ok(schema::look(connection.sqlite(), connection.path())? == schema::Found::Older)
}
