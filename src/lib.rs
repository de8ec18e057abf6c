//! Syncline: an embedded, single-writer event log. The modules stand in the order of the data's path: an event is plain
//! data with a payload of JSON text; a connection holds the tables; inside a transaction it is run (or replayed, with
//! the id and seq that the writer gave), projected into the caller's tables, and committed; the log is read in pages,
//! whether its events are rows or packed in segments; jobs pack, maintain, verify and copy the file, in slices; threads
//! checkpoint, pack and watch. The store is the façade, and `binding` the only module that names Node-API.
//!
//! Imports go one way, down this list: a block may import itself and those before it. A test holds that.

pub mod limits;

pub mod error;

pub mod event;
pub mod id;
pub mod payload;

pub mod codec;
pub mod compact;
pub mod segment;

pub mod connection;
pub mod schema;
mod wal;

mod constraint;

pub mod tables;
pub mod transaction;

pub mod known;

pub mod history;

pub mod dedupe;

pub mod owner;
pub mod project;
pub mod projected;
pub mod remove;
pub mod replay;
pub mod reproject;
pub mod run;

pub mod log;

mod event_history;
pub mod stats;

mod cursor;
pub mod statement;

pub mod adopt;
pub mod turn;

mod job;

pub mod pack;

pub mod maintain;
pub mod verify;

pub mod backup;

mod checkpoint;
mod packer;
pub mod watch;

pub mod core;
pub mod store;

pub mod binding;
