//! Every bound of the library, in one place. `docs/limits.md` names them; `__test__/71.limits.test.js` holds each at
//! the bound and one over it. This file imports nothing.

/// Longest versioned event type (`type.version`), in UTF-8 bytes.
pub const MAX_TYPE_BYTES: usize = 255;

/// Longest aggregate id, in UTF-8 bytes.
pub const MAX_AGGREGATE_ID_BYTES: usize = 8 * 1024;

/// Longest owner name, in UTF-8 bytes.
pub const MAX_OWNER_BYTES: usize = 255;

/// Longest event id, in UTF-8 bytes. Ours have 30; ids that replay brings are stored as they came.
pub const MAX_ID_BYTES: usize = 255;

/// Largest event `data` (and, apart from it, `metadata`) in UTF-8 bytes, unless `maxEventBytes` says otherwise.
pub const DEFAULT_MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// Deepest nesting of arrays and objects in an event's data or metadata.
pub const MAX_NESTING: usize = 1_000;

/// Largest sequence: below 2^32, so that a seq is an exact JavaScript number with room to spare.
pub const MAX_SEQ: i64 = u32::MAX as i64;

/// Largest key of an aggregate in `event_sequence`: below 2^31.
pub const MAX_AGGREGATE_KEY: i64 = i32::MAX as i64;

/// Largest integer that a JavaScript number carries exactly (2^53 − 1): bound of `created` and of positions.
pub const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// Aggregates of which a store keeps the newest events of each key, for definitions with `dedupe`.
pub const DEDUPE_AGGREGATES: usize = 64;

/// Keys that it keeps of them, about 32 bytes each; of the aggregate used last it keeps all.
pub const DEDUPE_KEYS: usize = 256 * 1024;

/// Rows of a page that is read for JavaScript, at most, whatever limit the caller gave.
pub const MAX_PAGE_ROWS: usize = 1_000;

/// Bytes of `data` after which a page of events ends. One event larger than this is a page of its own.
pub const PAGE_BYTES: usize = 1024 * 1024;

/// The same, for a query that goes through all events: segments of many aggregates reach over each other, and each page
/// decodes those that it meets.
pub const WIDE_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of `data` after which a page of a replay ends. JavaScript parses a whole page before it is applied, so that a
/// smaller page leaves less for its garbage collector to keep.
pub const REPLAY_PAGE_BYTES: usize = 128 * 1024;

/// Prepared statements kept per connection, least recently used out first.
pub const STATEMENT_CACHE: usize = 256;

/// Aggregate ids that a connection keeps in memory by their keys.
pub const KNOWN_AGGREGATES: usize = 10_000;

/// KiB of pages that a connection keeps in memory at most; a transaction that changes more writes the rest early.
pub const PAGE_CACHE_KIB: i64 = 4_000;

/// WAL bytes at which the checkpoint thread begins to copy frames back (PASSIVE, blocks nobody).
pub const WAL_PASSIVE_BYTES: u64 = 4 * 1024 * 1024;

/// WAL bytes at which the checkpoint thread also restarts the log (RESTART, waits for readers of old frames).
/// PASSIVE alone never resets the WAL under a busy writer: 3 GB in 12 s were seen.
pub const WAL_RESTART_BYTES: u64 = 32 * 1024 * 1024;

/// WAL bytes at which the writer itself checkpoints before its next BEGIN.
pub const WAL_HARD_BYTES: u64 = 64 * 1024 * 1024;

/// Size to which SQLite truncates the WAL file when the log restarts.
pub const JOURNAL_SIZE_LIMIT: u64 = WAL_RESTART_BYTES;

/// Bytes of data and metadata in a segment, at most; a larger event is a segment of its own. Measured on the recordings: the
/// larger, the smaller the file, with little to gain beyond; one decodes in 0.4 to 2 ms.
pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// Events in a segment, at most, so that reading one event decodes no more than some 100 kB where they are small.
pub const SEGMENT_EVENTS: usize = 1_024;

/// SQLite's own bound of a value (SQLITE_MAX_LENGTH, <https://sqlite.org/limits.html>).
pub const SQLITE_MAX_LENGTH: usize = 1_000_000_000;

/// Bytes of decoded segments that a connection keeps, least recently used out first; the last one is always kept.
pub const DECODED_BYTES: usize = 32 * 1024 * 1024;

/// And how many, at most: where they are small, looking through more would take longer than decoding one.
pub const DECODED_SEGMENTS: usize = 256;

/// Events, or bytes of them, that make it worth to pack an aggregate that is being written.
pub const PACK_LEAST_EVENTS: usize = 256;
/// See [`PACK_LEAST_EVENTS`].
pub const PACK_LEAST_BYTES: usize = 256 * 1024;

/// Bytes that the row of an event takes beside its data, about: id, numbers, its place in the index.
pub const ROW_BYTES: u64 = 100;

/// Rows up to which `stats` looks at each, not at its payload; of more it looks at a sample.
pub const STATS_EXACT_ROWS: i64 = 10_000;
/// Rows of that sample.
pub const STATS_SAMPLED_ROWS: i64 = 2_000;

/// Aggregates that maintenance names, at most, of those that it could not read.
pub const MAX_SKIPPED: usize = 100;

/// Aggregates that `stats` names, at most, of those that are not projected to their end.
pub const MAX_UNPROJECTED: usize = 100;

/// Findings that `verify` tells of, at most.
pub const MAX_FINDINGS: usize = 10_000;

/// Packed events that are put into the order of commits at once, at most …
pub const WINDOW_EVENTS: usize = 131_072;

/// … and bytes of their data and metadata; one larger event is alone.
pub const WINDOW_BYTES: usize = 16 * 1024 * 1024;
