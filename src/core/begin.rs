//! Beginning: whoever needs the lock for a moment has it first, and who waits for it is seen.

use std::time::Duration;

use super::Core;
use crate::error::Result;
use crate::transaction::{Mode, State};

/// How an attempt to begin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The frame is open.
    Yes,
    /// Another connection has the lock.
    Locked,
    /// The store itself needs a moment without a writer, or others do who wait. It is worth to come back soon.
    Soon,
}

impl Core {
    /// Opens the root or a savepoint. Only where `wait` is not asked for, the answer can be another one than `Yes`.
    pub(crate) fn begin(&mut self, mode: Mode, wait: bool) -> Result<Begun> {
        self.check_no_cursor()?;
        let root = self.transactions.state() == State::Autocommit;
        // A read-only connection has no write lock to take; what writes is refused where it would.
        let mode = if self.connection.is_readonly() { Mode::Deferred } else { mode };
        if root && !(self.may_begin(wait) && (mode == Mode::Deferred || self.connection.give_way(wait))) {
            return Ok(Begun::Soon);
        }
        let (connection, transactions) = (&self.connection, &mut self.transactions);
        let begun = if wait || !root {
            transactions.begin(connection, mode)
        } else {
            connection.waiting(Duration::ZERO, || transactions.begin(connection, mode))
        };
        self.transactions.notice(&self.connection, begun.as_ref().err().map(Box::as_ref));
        match begun {
            Err(error) if error.is_busy() && !wait => {
                self.connection.stand_in_line(true);
                Ok(Begun::Locked)
            }
            begun => {
                self.connection.stand_in_line(false);
                begun.map(|()| Begun::Yes)
            }
        }
    }

    /// Before the lock is taken: the store's own threads, if they need it for a moment, have it first.
    fn may_begin(&mut self, wait: bool) -> bool {
        if !self.turns.give_way(wait) {
            return false;
        }
        if let Some(packer) = &mut self.packer
            && !packer.before_begin(wait)
        {
            return false;
        }
        self.checkpointer.as_mut().is_none_or(|checkpointer| checkpointer.before_begin(&self.connection, wait))
    }
}
