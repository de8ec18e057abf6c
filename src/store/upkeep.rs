//! What a store does for its file rather than for its log, as jobs: on a connection of their own where there is a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Store;
use crate::backup::Backup;
use crate::checkpoint::Checkpointer;
use crate::connection::Connection;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::known::Known;
use crate::maintain::{Maintenance, Task};
use crate::pack::Plan;
use crate::projected::{self, Unprojected};
use crate::segment::Effort;
use crate::stats;
use crate::verify::Verification;

/// What a store tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The files.
    #[serde(flatten)]
    pub files: stats::Files,
    /// A reader keeps the WAL from beginning anew.
    pub wal_held: bool,
    /// The store packs by itself.
    pub packing: bool,
    /// The longest time for which its maintenance has held the write lock, in milliseconds.
    pub longest_hold: f64,
    /// The events.
    #[serde(flatten)]
    pub log: stats::Log,
    /// What is not projected to its end.
    pub unprojected: Vec<Unprojected>,
}

/// A job of one store. On a file it has a connection of its own, and can be stepped on any thread; but for a backup of a
/// file that is gone, which only the store's own connection can still read.
pub struct Errand {
    /// Dropped before the connection, which it may borrow.
    job: Box<dyn Job>,
    /// `None` where there can be no second connection.
    own: Option<(Connection, Known)>,
}

impl Errand {
    /// Whether its steps are [`Store::step`].
    pub fn is_here(&self) -> bool {
        self.own.is_none()
    }

    /// Does steps until `lasting` has passed. `false`: nothing more is to be done. `ERR_INVALID_ARGUMENT` for a job
    /// whose steps are [`Store::step`].
    pub fn step(&mut self, lasting: Duration) -> Result<bool> {
        match &mut self.own {
            Some((connection, known)) => connection.explained(steps(&mut *self.job, connection, known, lasting)),
            None => Err(Error::InvalidArgument("This job has no connection of its own".to_owned()).into()),
        }
    }

    /// What was done, or found, so far.
    pub fn report(&self) -> serde_json::Value {
        self.job.report()
    }
}

fn steps(job: &mut dyn Job, connection: &Connection, known: &mut Known, lasting: Duration) -> Result<bool> {
    let start = Instant::now();
    while job.step(connection, known)? {
        if start.elapsed() >= lasting {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Store {
    /// Tells of the files and the log, with at most so many of the largest events, and aggregates.
    pub fn stats(&self, largest: usize, aggregates: usize) -> Result<Stats> {
        self.with_log(|core| {
            let files = stats::files(&core.connection)?;
            let (log, unprojected) = core.snapshot(|connection, known| {
                let log = stats::log(connection, known, largest, aggregates)?;
                Ok((log, projected::list(connection, known)?))
            })?;
            Ok(Stats {
                files,
                wal_held: core.checkpointer.as_ref().is_some_and(Checkpointer::is_held),
                packing: core.packer.is_some(),
                longest_hold: core.turns.longest_hold().as_secs_f64() * 1_000.0,
                log,
                unprojected,
            })
        })
    }

    /// Begins maintenance. `idle`: aggregates that have not moved since now are packed whole. `rewrite`: the whole file is
    /// written anew.
    pub fn maintenance(&self, idle: bool, rewrite: bool) -> Result<Errand> {
        self.errand(|core| {
            core.check_writable()?;
            let task = Task {
                plan: Plan {
                    keep: core.keep,
                    idle_through: if idle { core.last_position()? } else { 0 },
                    effort: Effort::Thorough,
                },
                compact: true,
                free_pages: 0,
                analyze: true,
                alone: true,
                truncate: true,
                rewrite,
            };
            Ok(Box::new(Maintenance::new(task, Arc::clone(&core.rules), Arc::clone(&core.turns))))
        })
    }

    /// Begins a copy of the file, or of what is in memory, into a file that is not there yet.
    pub fn backup(&self, target: &str) -> Result<Errand> {
        self.errand_on(|core| {
            let gone = core.connection.check_in_place().is_err_and(|error| matches!(*error, Error::FileGone(_)));
            let job: Box<dyn Job> = Box::new(Backup::new(&core.connection, target, gone)?);
            Ok((job, gone))
        })
    }

    /// Begins to verify the file. `repair`: what can be mended without loss is.
    pub fn verification(&self, repair: bool) -> Result<Errand> {
        self.errand(|core| {
            if repair {
                core.check_writable()?;
            }
            let defined = core.definitions.names().map(str::to_owned).collect();
            Ok(Box::new(Verification::new(defined, repair, Arc::clone(&core.turns))))
        })
    }

    fn errand(&self, job: impl FnOnce(&mut Core) -> Result<Box<dyn Job>>) -> Result<Errand> {
        self.errand_on(|core| Ok((job(core)?, false)))
    }

    /// The same for a job that says whether it needs the store's own connection.
    fn errand_on(&self, job: impl FnOnce(&mut Core) -> Result<(Box<dyn Job>, bool)>) -> Result<Errand> {
        self.with(|core| {
            let (job, here) = job(core)?;
            let beside = core.connection.beside(&self.options);
            let own = match (here || core.connection.is_memory(), core.connection.is_readonly()) {
                (true, _) => None,
                (false, true) => Some(Connection::open_beside(&beside)?),
                (false, false) => Some(Connection::open_worker(&beside)?),
            };
            Ok(Errand { job, own: own.map(|connection| (connection, Known::default())) })
        })
    }

    /// Does steps of a job that has no connection, on the store's own connection, until `lasting` has passed. `ERR_IN_TRANSACTION` inside
    /// a transaction.
    pub fn step(&self, errand: &mut Errand, lasting: Duration) -> Result<bool> {
        self.with(|core| {
            if !core.connection.sqlite().is_autocommit() {
                return Err(Error::InTransaction(
                    "Inside a transaction this job is not possible: it needs the store's own connection",
                )
                .into());
            }
            core.check_no_cursor()?;
            let done = steps(&mut *errand.job, &core.connection, &mut core.known, lasting);
            core.noticed(done)
        })
    }
}
