//! Statements of the caller, over the same connection and inside the same transaction as the log. A statement keeps its
//! text, not SQLite's object: that comes out of the cache for each use, so that closing the store, or using a statement
//! inside itself, is safe.

use std::cell::{Cell, RefCell};

use rusqlite::types::Value;
use rusqlite::{Batch, Row, Statement};

use crate::connection::{Connection, Control, Effects};
use crate::constraint;
use crate::error::{Error, Result};
use crate::transaction::{State, Transactions};

/// A statement that has been prepared once and checked to be one.
pub struct Prepared {
    /// Its text.
    pub sql: String,
    /// What it does.
    pub effects: Effects,
    /// It gives rows.
    pub reader: bool,
    /// It changes nothing in the file.
    pub readonly: bool,
    /// Names of its parameters with their prefix, `None` for `?`.
    pub parameters: Vec<Option<String>>,
    columns: RefCell<Vec<String>>,
    generation: Cell<u32>,
}

/// What is known of a result column; all but the name is `None` for an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As the statement names it.
    pub name: String,
    /// The column it comes from.
    pub column: Option<String>,
    /// Its table.
    pub table: Option<String>,
    /// Its database.
    pub database: Option<String>,
    /// Its declared type.
    pub declared_type: Option<String>,
}

impl Prepared {
    /// Prepares `sql`. `ERR_INVALID_ARGUMENT` unless it is one statement, `ERR_SQLITE` where SQLite refuses it.
    pub fn new(connection: &Connection, sql: String) -> Result<Self> {
        let effects = connection.effects(&sql)?;
        let statement = connection.cached(&sql)?;
        let parameters =
            (1..=statement.parameter_count()).map(|index| statement.parameter_name(index).map(str::to_owned)).collect();
        let prepared = Prepared {
            effects,
            reader: statement.column_count() > 0,
            readonly: statement.readonly(),
            parameters,
            columns: RefCell::new(names(&statement)),
            generation: Cell::new(0),
            sql: String::new(),
        };
        drop(statement);
        Ok(Prepared { sql, ..prepared })
    }

    /// The number that changes when the columns do, as they can when a table is altered under `SELECT *`.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }

    /// The columns as they are now.
    pub fn columns(&self, connection: &Connection) -> Result<Vec<Column>> {
        let statement = connection.cached(&self.sql)?;
        let declared: Vec<Option<String>> =
            statement.columns().map(|column| column.decl_type().map(str::to_owned)).collect();
        Ok(statement
            .columns_with_metadata()
            .zip(declared)
            .map(|(column, declared_type)| Column {
                name: column.name().to_owned(),
                column: column.origin_name().map(str::to_owned),
                table: column.table_name().map(str::to_owned),
                database: column.database_name().map(str::to_owned),
                declared_type,
            })
            .collect())
    }

    /// Compares the columns of a first row with those known.
    pub(crate) fn notice_columns(&self, row: &Row<'_>) {
        let statement: &Statement<'_> = row.as_ref();
        let known = self.columns.borrow();
        let same = known.len() == statement.column_count()
            && known.iter().enumerate().all(|(index, name)| statement.column_name(index).is_ok_and(|now| now == name));
        drop(known);
        if !same {
            *self.columns.borrow_mut() = names(statement);
            self.generation.set(self.generation.get() + 1);
        }
    }
}

fn names(statement: &Statement<'_>) -> Vec<String> {
    statement.column_names().map(str::to_owned).collect()
}

/// Binds values by position. `ERR_INVALID_ARGUMENT` where there are too few or too many.
pub(crate) fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<()> {
    let expected = statement.parameter_count();
    if values.len() != expected {
        return Err(Error::InvalidArgument(format!(
            "The statement has {expected} parameters, {} values were given",
            values.len()
        ))
        .into());
    }
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

/// Runs a statement whose parameters are bound to its end.
fn exhaust(statement: &mut Statement<'_>) -> Result<()> {
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

/// A raw transaction may have taken the write lock with any of its statements: that its file is still there is looked at before
/// it ends.
fn check_at_end(connection: &Connection, transactions: &Transactions, control: Option<&Control>) -> Result<()> {
    let ends = matches!(control, Some(Control::Commit | Control::Release(_)));
    if ends && transactions.state() == State::Raw { connection.check_at_commit() } else { Ok(()) }
}

/// Runs a statement and hands over its rows until `visit` says `false`. `true` where rows were taken back by it.
pub(crate) fn execute(
    connection: &Connection,
    transactions: &mut Transactions,
    prepared: &Prepared,
    values: &[Value],
    visit: &mut dyn FnMut(&Row<'_>) -> Result<bool>,
) -> Result<bool> {
    let control = prepared.effects.control.as_ref();
    transactions.notice(connection, None);
    transactions.check(control, prepared.effects.touches_log)?;
    check_at_end(connection, transactions, control)?;
    let mut step = || -> Result<()> {
        let mut statement = connection.cached(&prepared.sql)?;
        bind(&mut statement, values)?;
        let mut rows = statement.raw_query();
        let mut first = true;
        while let Some(row) = rows.next()? {
            if first {
                prepared.notice_columns(row);
                first = false;
            }
            if !visit(row)? {
                break;
            }
        }
        Ok(())
    };
    let stepped = step().map_err(|error| {
        let mut again = || {
            let mut statement = connection.cached(&prepared.sql)?;
            bind(&mut statement, values)?;
            exhaust(&mut statement)
        };
        constraint::explain(connection, &prepared.sql, *error, Some(&mut again)).into()
    });
    transactions.notice(connection, stepped.as_ref().err().map(Box::as_ref));
    stepped?;
    Ok(control.is_some_and(|control| transactions.follow(control)))
}

/// Runs every statement of `sql` in turn and throws their rows away. `true` where rows were taken back by one.
pub(crate) fn execute_all(connection: &Connection, transactions: &mut Transactions, sql: &str) -> Result<bool> {
    transactions.notice(connection, None);
    let mut batch = Batch::new(connection.sqlite(), sql);
    let mut taken_back = false;
    loop {
        let (statement, effects) = connection.next_of(&mut batch)?;
        let Some(mut statement) = statement else {
            return Ok(taken_back);
        };
        transactions.check(effects.control.as_ref(), effects.touches_log)?;
        check_at_end(connection, transactions, effects.control.as_ref())?;
        if !statement.readonly() && transactions.state() == State::Autocommit {
            connection.check_at_begin()?;
        }
        let stepped = exhaust(&mut statement).map_err(|error| match statement.expanded_sql() {
            Some(sql) => constraint::explain(connection, &sql, *error, Some(&mut || exhaust(&mut statement))).into(),
            None => error,
        });
        drop(statement);
        transactions.notice(connection, stepped.as_ref().err().map(Box::as_ref));
        stepped?;
        taken_back |= effects.control.is_some_and(|control| transactions.follow(&control));
    }
}
