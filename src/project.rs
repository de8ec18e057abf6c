//! Definitions as the core knows them, and projectors written in SQL, which run here. A projector in JavaScript is
//! driven by the TypeScript layer.

use std::cell::OnceCell;

use rusqlite::ToSql;
use rusqlite::types::ToSqlOutput;
use rustc_hash::FxHashMap;

use crate::compact::{Rule, Rules};
use crate::connection::Connection;
use crate::constraint;
use crate::dedupe;
use crate::error::{Error, Result};
use crate::event::StoredEvent;
use crate::transaction::Transactions;

/// What turns events of one type and version into changes of the caller's tables.
pub enum Projector {
    /// Nothing was given: recording the type is an error.
    Missing,
    /// The definition says `projector: "none"`.
    None,
    /// A function of the caller.
    JavaScript,
    /// Statements that run here, in order.
    Sql(Vec<SqlProjector>),
}

/// A versioned event type.
pub struct Definition {
    /// `type.version`.
    pub name: String,
    /// The field of `data` that names the aggregate.
    pub aggregate: String,
    /// The same as JSON text spells it, without its quotes.
    pub aggregate_key: String,
    /// What projects it.
    pub projector: Projector,
    /// JavaScript has to see each replayed event, to check it against the schema.
    pub validate: bool,
    /// Data of this version goes through JavaScript before its projector.
    pub upcast: bool,
    /// Where a constraint refuses what its projector does, that is taken back, and the event is recorded all the same.
    pub skips: bool,
    /// Which of its events later ones supersede.
    pub compact: Option<Rule>,
    /// Which of its events say nothing new.
    pub dedupe: Option<dedupe::Rule>,
}

impl Definition {
    /// A definition of `type.version` whose aggregate is named by a field of `data`.
    pub fn new(name: String, aggregate: String, projector: Projector) -> Self {
        let quoted = serde_json::Value::from(aggregate.as_str()).to_string();
        let aggregate_key = quoted[1..quoted.len() - 1].to_owned();
        let (validate, upcast, skips) = (false, false, false);
        let (compact, dedupe) = (None, None);
        Definition { name, aggregate, aggregate_key, projector, validate, upcast, skips, compact, dedupe }
    }

    /// The type without its version.
    pub fn unversioned(&self) -> &str {
        self.name.rsplit_once('.').map_or(self.name.as_str(), |(name, _)| name)
    }

    /// The version.
    pub fn version(&self) -> i64 {
        self.name.rsplit_once('.').and_then(|(_, version)| version.parse().ok()).unwrap_or(0)
    }

    /// Whether the TypeScript layer has to act on each replayed event.
    pub fn needs_javascript(&self) -> bool {
        self.validate || self.upcast || matches!(self.projector, Projector::JavaScript)
    }
}

/// The registered definitions, by index and by name.
#[derive(Default)]
pub struct Definitions {
    list: Vec<Definition>,
    by_name: FxHashMap<String, usize>,
}

impl Definitions {
    /// In the order in which they were registered.
    pub fn new(list: Vec<Definition>) -> Self {
        let by_name = list.iter().enumerate().map(|(index, definition)| (definition.name.clone(), index)).collect();
        Definitions { list, by_name }
    }

    /// The definition of an index that this layer handed out.
    pub fn get(&self, index: usize) -> Result<&Definition> {
        self.list.get(index).ok_or_else(|| Error::InvalidArgument(format!("No definition has index {index}")).into())
    }

    /// The rules of compaction.
    pub fn rules(&self) -> Rules {
        Rules::new(self.list.iter().filter_map(|definition| definition.compact.clone()).collect())
    }

    /// The rules of deduplication.
    pub fn dedupe(&self) -> Vec<dedupe::Rule> {
        self.list.iter().filter_map(|definition| definition.dedupe.clone()).collect()
    }

    /// The `type.version` of every one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|definition| definition.name.as_str())
    }

    /// The index of a `type.version`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

/// A named parameter of a SQL projector.
#[derive(Debug, Clone, Copy)]
enum Parameter {
    Data,
    AggregateId,
    Seq,
    Id,
    Type,
    Version,
    Created,
}

/// One statement of a SQL projector, checked and bound to its parameters at its first use: `open` looks at no table
/// of the application.
pub struct SqlProjector {
    sql: String,
    parameters: OnceCell<Vec<Parameter>>,
}

impl SqlProjector {
    /// Takes the text as it is.
    pub fn new(sql: String) -> Self {
        SqlProjector { sql, parameters: OnceCell::new() }
    }

    fn run(
        &self,
        connection: &Connection,
        transactions: &Transactions,
        definition: &Definition,
        event: &StoredEvent<'_>,
    ) -> Result<()> {
        let parameters = match self.parameters.get() {
            Some(parameters) => parameters,
            None => {
                let parameters = self.check(connection, transactions)?;
                self.parameters.get_or_init(|| parameters)
            }
        };
        let mut step = || -> Result<()> {
            let mut statement = connection.cached(&self.sql)?;
            for (index, parameter) in parameters.iter().enumerate() {
                statement.raw_bind_parameter(index + 1, parameter.of(definition, event))?;
            }
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        step().map_err(|error| constraint::explain(connection, &self.sql, *error, Some(&mut step)).into())
    }

    fn check(&self, connection: &Connection, transactions: &Transactions) -> Result<Vec<Parameter>> {
        let effects = connection.effects(&self.sql)?;
        debug_assert!(transactions.projecting, "statements of projectors are checked as a projector's");
        transactions.check(effects.control.as_ref(), effects.touches_log)?;
        let statement = connection.cached(&self.sql)?;
        (1..=statement.parameter_count())
            .map(|index| {
                let name = statement.parameter_name(index);
                name.and_then(Parameter::named).ok_or_else(|| {
                    Error::InvalidArgument(format!(
                        "A parameter {}; there are :data :aggregateID :seq :id :type :version :created",
                        name.unwrap_or("without a name"),
                    ))
                    .into()
                })
            })
            .collect()
    }
}

impl Parameter {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            ":data" => Parameter::Data,
            ":aggregateID" => Parameter::AggregateId,
            ":seq" => Parameter::Seq,
            ":id" => Parameter::Id,
            ":type" => Parameter::Type,
            ":version" => Parameter::Version,
            ":created" => Parameter::Created,
            _ => return None,
        })
    }

    fn of<'a>(self, definition: &'a Definition, event: &StoredEvent<'a>) -> Bound<'a> {
        match self {
            Parameter::Data => Bound::Text(event.data),
            Parameter::AggregateId => Bound::Text(event.aggregate_id),
            Parameter::Id => Bound::Text(event.id),
            Parameter::Type => Bound::Text(definition.unversioned()),
            Parameter::Seq => Bound::Integer(Some(event.seq)),
            Parameter::Version => Bound::Integer(Some(definition.version())),
            Parameter::Created => Bound::Integer(event.created),
        }
    }
}

enum Bound<'a> {
    Text(&'a str),
    Integer(Option<i64>),
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Bound::Text(text) => text.to_sql(),
            Bound::Integer(integer) => integer.to_sql(),
        }
    }
}

/// Runs the SQL projector of an event; for any other kind there is nothing to do here. A failure names the event. `Some`:
/// a constraint refused it, what it did is taken back, and the definition says that the event is recorded all the same.
pub fn project(
    connection: &Connection,
    transactions: &mut Transactions,
    definition: &Definition,
    event: &StoredEvent<'_>,
) -> Result<Option<Error>> {
    let Projector::Sql(statements) = &definition.projector else {
        return Ok(None);
    };
    if definition.skips {
        transactions.begin_projector(connection)?;
    }
    transactions.projecting = true;
    let done = statements.iter().try_for_each(|statement| statement.run(connection, transactions, definition, event));
    transactions.projecting = false;
    let Err(error) = done else {
        if definition.skips {
            transactions.keep_projector(connection)?;
        }
        return Ok(None);
    };
    transactions.notice(connection, Some(&error));
    let error = match *error {
        Error::InvalidArgument(message) => {
            Error::InvalidArgument(format!("{message}: in the SQL projector of {}", definition.name))
        }
        other => located(other, definition, event),
    };
    if definition.skips && error.is_constraint() && transactions.undo_projector(connection) {
        return Ok(Some(error));
    }
    Err(error.into())
}

/// What SQLite refused because of one event.
pub fn located(error: Error, definition: &Definition, event: &StoredEvent<'_>) -> Error {
    if !matches!(error, Error::Sqlite { .. } | Error::Constraint { .. }) {
        return error;
    }
    Error::Projection {
        failure: Box::new(error),
        type_name: definition.name.clone(),
        aggregate_id: event.aggregate_id.to_owned(),
        seq: event.seq,
    }
}
