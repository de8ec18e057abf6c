//! What a statement does, as SQLite's authorizer sees it being prepared. No SQL is parsed here.

use rusqlite::Batch;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, TransactionOperation};

use super::Connection;
use crate::error::{Error, Result};
use crate::schema;

/// A statement that begins, ends or divides a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN`
    Begin,
    /// `COMMIT` or `END`
    Commit,
    /// `ROLLBACK`
    Rollback,
    /// `SAVEPOINT name`
    Savepoint(String),
    /// `RELEASE name`
    Release(String),
    /// `ROLLBACK TO name`
    RollbackTo(String),
}

/// What a statement does, as SQLite's authorizer saw it being prepared. No SQL is parsed here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// It changes the state of the transaction.
    pub control: Option<Control>,
    /// It reads or writes Syncline's own tables.
    pub touches_log: bool,
    /// What it writes, where that is asked.
    written: Option<Box<Written>>,
}

/// What a statement writes and calls, its triggers and the actions of foreign keys included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// The changes of rows that it may make.
    pub changes: Vec<Change>,
    /// The functions that it may call.
    pub functions: Vec<String>,
    /// It may be an INSERT OR REPLACE, of which the authorizer is not told what it deletes.
    pub replaces: bool,
}

/// One kind of change of a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `main`, `temp`, or the name of an attached one.
    pub database: String,
    /// The table.
    pub table: String,
    /// The column that an UPDATE sets; `None` for an INSERT or a DELETE.
    pub column: Option<String>,
    /// It is an INSERT.
    pub insert: bool,
}

impl Connection {
    /// Prepares `sql` once to learn what it does. `ERR_INVALID_ARGUMENT` unless it is exactly one statement.
    pub fn effects(&self, sql: &str) -> Result<Effects> {
        let mut batch = Batch::new(&self.sqlite, sql);
        let (first, effects) = self.next_of(&mut batch)?;
        let Some(first) = first else {
            return Err(Error::InvalidArgument("The SQL holds no statement".to_owned()).into());
        };
        drop(first);
        match batch.next() {
            Ok(None) => Ok(effects),
            _ => Err(Error::InvalidArgument("The SQL holds more than one statement".to_owned()).into()),
        }
    }

    /// What one statement writes.
    pub fn written(&self, sql: &str) -> Result<Written> {
        *self.observed.lock() = Effects { written: Some(Box::default()), ..Effects::default() };
        let prepared = self.sqlite.prepare(sql);
        let written = self.observed.lock().written.take();
        *self.observed.lock() = Effects::default();
        prepared?;
        let replaces = sql.to_ascii_lowercase().contains("replace");
        Ok(Written { replaces, ..written.map(|written| *written).unwrap_or_default() })
    }

    /// The next statement of a batch, with what it does.
    pub fn next_of<'c>(&'c self, batch: &mut Batch<'c, '_>) -> Result<(Option<rusqlite::Statement<'c>>, Effects)> {
        *self.observed.lock() = Effects::default();
        let next = batch.next()?;
        let mut effects = std::mem::take(&mut *self.observed.lock());
        if next.as_ref().is_some_and(|statement| statement.is_explain() != 0) {
            // It tells how the statement would run, and does not run it.
            effects.control = None;
        }
        Ok((next, effects))
    }
}

/// Notes one thing that a statement does, as SQLite prepares it.
pub(super) fn observe(effects: &mut Effects, context: &AuthContext<'_>) {
    if let Some(written) = &mut effects.written {
        written.note(context);
    }
    let touched = match context.action {
        AuthAction::Transaction { operation } => {
            effects.control = Some(match operation {
                TransactionOperation::Begin => Control::Begin,
                TransactionOperation::Rollback => Control::Rollback,
                // rusqlite has no name for "COMMIT".
                _ => Control::Commit,
            });
            return;
        }
        AuthAction::Savepoint { operation, savepoint_name } => {
            let name = savepoint_name.to_owned();
            effects.control = Some(match operation {
                TransactionOperation::Begin => Control::Savepoint(name),
                TransactionOperation::Release => Control::Release(name),
                _ => Control::RollbackTo(name),
            });
            return;
        }
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. } => table_name,
        _ => return,
    };
    let in_main = context.database_name.is_none_or(|name| name == "main");
    effects.touches_log |= in_main && schema::is_ours(touched);
}

impl Written {
    fn note(&mut self, context: &AuthContext<'_>) {
        let (table, column, insert) = match context.action {
            AuthAction::Insert { table_name } => (table_name, None, true),
            AuthAction::Update { table_name, column_name } => (table_name, Some(column_name.to_owned()), false),
            AuthAction::Delete { table_name } => (table_name, None, false),
            AuthAction::Function { function_name } => return self.functions.push(function_name.to_owned()),
            _ => return,
        };
        let database = context.database_name.unwrap_or("main").to_owned();
        self.changes.push(Change { database, table: table.to_owned(), column, insert });
    }
}
