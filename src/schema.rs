//! Syncline's own tables: creates them, and refuses what it did not make. One SQL object a file in `schema/`.

use rusqlite::{Connection as Sqlite, OptionalExtension};

use crate::error::{Error, Result};

/// Version of the tables below; it stands in `event_meta`.
pub const FORMAT: i64 = 1;

/// Name and SQL of every object, in the order of creation. SQLite keeps the text as it was given, so that an object is
/// ours exactly when its stored text is this text.
const OBJECTS: [(&str, &str); 13] = [
    ("event_meta", include_str!("schema/event_meta.sql")),
    ("event_sequence", include_str!("schema/event_sequence.sql")),
    ("event_sequence_moved", include_str!("schema/event_sequence_moved.sql")),
    ("event_sequence_removed", include_str!("schema/event_sequence_removed.sql")),
    ("event_sequence_unprojected", include_str!("schema/event_sequence_unprojected.sql")),
    ("event_type", include_str!("schema/event_type.sql")),
    ("event", include_str!("schema/event.sql")),
    ("event_aggregate_seq", include_str!("schema/event_aggregate_seq.sql")),
    ("event_segment", include_str!("schema/event_segment.sql")),
    ("event_segment_seq", include_str!("schema/event_segment_seq.sql")),
    ("event_segment_first", include_str!("schema/event_segment_first.sql")),
    ("event_gap", include_str!("schema/event_gap.sql")),
    ("event_log", include_str!("schema/event_log.sql")),
];

/// The objects that are there while older tables are adopted. The second stays where there is something to tell.
const ADOPTION: [(&str, &str); 2] = [
    ("event_adoption", include_str!("schema/event_adoption.sql")),
    ("event_adoption_finding", include_str!("schema/event_adoption_finding.sql")),
];

/// The tables of an older event log.
pub const OLDER: [&str; 2] = ["event", "event_sequence"];

/// What a file holds under Syncline's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the tables are still to be made.
    Nothing,
    /// Exactly this version's objects.
    Ours,
    /// Tables that look like the older event log, and nothing else.
    Older,
    /// This version's objects, and older tables that are being adopted.
    Adopting,
}

/// Whether `table` (as SQLite names it) is one of Syncline's own.
pub fn is_ours(table: &str) -> bool {
    OBJECTS.iter().any(|(name, _)| name.eq_ignore_ascii_case(table))
}

/// The same, where the caller adopts nothing: `ERR_FOREIGN_SCHEMA` also for older tables, with the advice to adopt them.
pub fn look_for_ours(sqlite: &Sqlite, path: &str) -> Result<Found> {
    let (object, advice) = match look(sqlite, path)? {
        Found::Older => ("table \"event\"", " (an older event log: open it with adopt: true)"),
        Found::Adopting => (
            "table \"event_older\"",
            " (an older event log of which a part has been adopted: go on by opening it with adopt: true)",
        ),
        found => return Ok(found),
    };
    Err(Error::ForeignSchema { path: path.to_owned(), object: object.to_owned(), advice }.into())
}

/// Looks at what stands under our names and changes nothing. `ERR_FOREIGN_SCHEMA` for anything that is neither ours nor
/// an older event log, `ERR_SCHEMA_NEWER` for a later format.
pub fn look(sqlite: &Sqlite, path: &str) -> Result<Found> {
    let mut found = Vec::new();
    let mut adopting = false;
    let mut statement = sqlite.prepare("SELECT type, name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        adopting |= name == ADOPTION[0].0 && sql == statement_of(ADOPTION[0].1);
        if is_ours(&name) {
            found.push((kind, name, sql));
        }
    }
    if found.is_empty() {
        return Ok(Found::Nothing);
    }
    let foreign = |object: String, advice| Err(Error::ForeignSchema { path: path.to_owned(), object, advice }.into());
    if !found.iter().any(|(_, name, _)| name == "event_meta") {
        let is_older = |wanted: &str| {
            found.iter().any(|(kind, name, sql)| {
                kind == "table" && name.eq_ignore_ascii_case(wanted) && sql.contains("aggregate_id")
            })
        };
        let older = |name: &str| OLDER.iter().any(|older| older.eq_ignore_ascii_case(name));
        // An index of the older tables may have the name of one of ours. It goes with them.
        match found.iter().find(|(kind, name, _)| kind != "index" && !older(name)) {
            None if OLDER.into_iter().all(is_older) => return Ok(Found::Older),
            other => {
                let (kind, name, _) = other.unwrap_or(&found[0]);
                let advice = if is_older("event") { " (an older event log, but not that alone)" } else { "" };
                return foreign(format!("{kind} \"{name}\""), advice);
            }
        }
    }
    let format: Option<i64> =
        match sqlite.query_row("SELECT format FROM main.event_meta", [], |row| row.get(0)).optional() {
            Ok(format) => format,
            Err(rusqlite::Error::SqlInputError { .. } | rusqlite::Error::InvalidColumnType(..)) => None,
            Err(error) => return Err(error.into()),
        };
    match format {
        None => return foreign("table \"event_meta\"".to_owned(), ""),
        Some(newer) if newer > FORMAT => {
            return Err(Error::SchemaNewer { path: path.to_owned(), found: newer, supported: FORMAT }.into());
        }
        Some(_) => {}
    }
    for (name, sql) in OBJECTS {
        match found.iter().find(|(_, other, _)| other == name) {
            Some((_, _, text)) if text == statement_of(sql) => {}
            Some((kind, _, _)) => return foreign(format!("{kind} \"{name}\""), ""),
            None => return Err(Error::Corrupt(format!("\"{path}\" has lost its \"{name}\"")).into()),
        }
    }
    Ok(if adopting { Found::Adopting } else { Found::Ours })
}

/// Makes the tables, inside the write transaction that the caller holds.
pub fn create(sqlite: &Sqlite) -> Result<()> {
    for (_, sql) in OBJECTS {
        sqlite.execute_batch(statement_of(sql))?;
    }
    sqlite.execute("INSERT INTO event_meta (id, format, position_floor) VALUES (1, ?1, 0)", [FORMAT])?;
    Ok(())
}

/// Makes the tables that are there while older ones are adopted, in the same transaction.
pub fn create_adoption(sqlite: &Sqlite) -> Result<()> {
    for (_, sql) in ADOPTION {
        sqlite.execute_batch(statement_of(sql))?;
    }
    Ok(())
}

/// The statement without the comment above it, which is how SQLite stores it.
fn statement_of(sql: &'static str) -> &'static str {
    sql.find("CREATE").map_or(sql, |start| sql[start..].trim_end())
}
