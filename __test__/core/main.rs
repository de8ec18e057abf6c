//! The core through its façade, against a plain model.

mod model;
mod program;
mod wal;
