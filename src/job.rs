//! Work on a file that takes long: done in steps, each bounded and complete in itself, so that whoever asked for it can
//! tell how far it is, and stop.

use crate::connection::Connection;
use crate::error::Result;
use crate::known::Known;

/// A job that is on its way. It may be stepped on any thread.
pub trait Job: Send {
    /// Does the next step. `false`: nothing more is to be done. After an error the same step can be tried again.
    fn step(&mut self, connection: &Connection, known: &mut Known) -> Result<bool>;

    /// What was done, or found, so far, as JavaScript gets it.
    fn report(&self) -> serde_json::Value;
}
