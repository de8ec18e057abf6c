//! What makes the file smaller once events are packed: vacuum in slices, or the whole file written anew; and what is done last,
//! statistics and the WAL.

use std::time::{Duration, Instant};

use super::{Maintenance, Phase, free_pages, page_count};
use crate::connection::Connection;
use crate::error::Result;
use crate::limits::{WAL_PASSIVE_BYTES, WAL_RESTART_BYTES};
use crate::schema;

/// What a slice of vacuum should take at most; the number of its pages follows from what the last one took.
const VACUUM_SLICE: Duration = Duration::from_millis(2);

/// The pages of a slice of vacuum at most: what they cost grows faster than their number.
const MOST_VACUUM_PAGES: i64 = 256;

/// Rows that ANALYZE looks at in each index (<https://sqlite.org/pragma.html#pragma_analysis_limit>).
const ANALYSIS_LIMIT: i64 = 400;

/// How long it waits for readers before the WAL can begin anew.
const RESTART_PATIENCE: Duration = Duration::from_millis(20);

/// How long cutting the WAL waits for readers.
const TRUNCATE_PATIENCE: Duration = Duration::from_millis(200);

impl Maintenance {
    /// Copies the WAL back as it grows: a store that is silent while it is maintained would not.
    pub(super) fn bound_wal(&mut self, connection: &Connection) -> Result<()> {
        let wal_bytes = connection.wal_bytes();
        if wal_bytes < self.copied_at {
            // It has begun anew.
            self.copied_at = 0;
        }
        if !self.task.alone || connection.is_memory() || wal_bytes < self.copied_at + WAL_PASSIVE_BYTES {
            return Ok(());
        }
        self.copied_at = wal_bytes;
        connection.checkpoint("PASSIVE")?;
        if wal_bytes >= WAL_RESTART_BYTES {
            // Where a reader prevents it, the next one tries again.
            self.turns.during(|| connection.waiting(RESTART_PATIENCE, || connection.checkpoint("RESTART")))?;
        }
        Ok(())
    }

    pub(super) fn rewrite(&mut self, connection: &Connection) -> Result<Phase> {
        connection.check_in_place()?;
        let before = page_count(connection)?;
        connection.sqlite().pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        self.turns.during(|| Ok(connection.sqlite().execute_batch("VACUUM")?))?;
        self.freed(connection, before - page_count(connection)?);
        self.after_vacuum(connection)
    }

    pub(super) fn vacuum(&mut self, connection: &Connection, pages: i64) -> Result<Phase> {
        let free = free_pages(connection)?;
        if free <= self.task.free_pages {
            return self.after_vacuum(connection);
        }
        let start = Instant::now();
        self.turns.slice(connection, || {
            let mut statement = connection.cached(&format!("PRAGMA main.incremental_vacuum({pages})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(Some(()))
        })?;
        let freed = free - free_pages(connection)?;
        if freed <= 0 {
            return self.after_vacuum(connection);
        }
        self.freed(connection, freed);
        let pages =
            if start.elapsed() > VACUUM_SLICE { (pages / 2).max(8) } else { (pages * 2).min(MOST_VACUUM_PAGES) };
        Ok(Phase::Vacuum { pages })
    }

    pub(super) fn freed(&mut self, connection: &Connection, pages: i64) {
        self.progress.freed_bytes += u64::try_from(pages).unwrap_or(0) * connection.page_size();
    }

    pub(super) fn after_vacuum(&self, connection: &Connection) -> Result<Phase> {
        if !self.task.analyze {
            return Ok(Phase::Checkpoint);
        }
        let mut statement = connection.cached(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND sql NOT LIKE 'CREATE VIRTUAL%'",
        )?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        // What we ask of our own tables has one plan each.
        Ok(Phase::Analyze(names.into_iter().filter(|name| !schema::is_ours(name)).collect()))
    }

    pub(super) fn analyze(&mut self, connection: &Connection, mut tables: Vec<String>) -> Result<Phase> {
        let Some(table) = tables.pop() else { return Ok(Phase::Checkpoint) };
        connection.sqlite().pragma_update_and_check(None, "analysis_limit", ANALYSIS_LIMIT, |_| Ok(()))?;
        let analyzed = self.turns.slice(connection, || {
            let quoted = table.replace('"', "\"\"");
            Ok(Some(connection.sqlite().execute_batch(&format!("ANALYZE main.\"{quoted}\""))?))
        });
        match analyzed {
            Err(error) if error.is_busy() => Err(error),
            // A table that cannot be analyzed, because its collation is unknown here, say, is the program's business.
            _ => Ok(Phase::Analyze(tables)),
        }
    }

    pub(super) fn truncate(&mut self, connection: &Connection) -> Result<Phase> {
        if self.task.truncate && !connection.is_memory() {
            connection.checkpoint("PASSIVE")?;
            let cut = self.turns.during(|| connection.waiting(TRUNCATE_PATIENCE, || connection.checkpoint("TRUNCATE")));
            self.progress.truncated = cut.is_ok_and(|(busy, _)| !busy);
        }
        Ok(Phase::Done)
    }
}
