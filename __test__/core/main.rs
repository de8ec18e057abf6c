//! The core through its façade, against a plain model.

mod fuzz;
mod model;
mod owner;
mod poison;
mod program;
mod wal;
mod watch;
