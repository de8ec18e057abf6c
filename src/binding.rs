//! The boundary to JavaScript: the only module that names Node-API, and one that names no SQL. Free functions over
//! opaque handles, since a class method costs several times as much. TypeScript drives: nothing here calls back but the
//! functions that a program gave to SQL.
//!
//! Node-API's own functions are called directly where rows and events are turned into values, which is where the time
//! goes. That needs unsafe code; each file that has it says why it is sound.

pub mod adopt;
pub mod codec;
pub mod coded_error;
pub mod environment;
pub mod log;
pub mod replay;
pub mod statement;
pub mod store;
pub mod upkeep;
pub mod value;
pub mod version;
pub mod watch;
