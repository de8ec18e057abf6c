//! Writes the WAL frames of a commit with one write. SQLite writes each frame as a header of 24 bytes and then a page,
//! two system calls a page, none of them aligned; gathered, a commit costs one. What is written, and where, stays the
//! same, and so does the order of writing, syncing and publishing: frames are gathered only while COMMIT runs, which
//! holds the write lock, and are written when the frame that marks the commit arrives, before SQLite publishes it.
//!
//! SQLite has no setting for this, so the methods of the open WAL file are replaced (a VFS in front of the default one
//! would do the same with five times the code). That needs unsafe code.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection as Sqlite;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods};

/// Bytes of a frame's header, and where in it stands the size of the database after a commit, zero in other frames
/// (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
const FRAME_HEADER: usize = 24;
const COMMIT_MARK: std::ops::Range<usize> = 4..8;

/// Bytes that are gathered, and written at once, at most; a larger commit is written in several parts. SQLite's Unix VFS
/// keeps only 17 bits of a write's length, since no write of its own is longer than a page.
const MOST_BYTES: usize = 0x1_0000;

/// Says when frames are to be gathered: while COMMIT runs.
#[derive(Debug, Default)]
pub struct Gather {
    on: AtomicBool,
    closed: AtomicBool,
}

impl Gather {
    /// Runs `commit` with gathering on.
    pub fn during<T>(&self, commit: impl FnOnce() -> T) -> T {
        // One thread uses the connection: the order of these stores with SQLite's calls is program order.
        self.on.store(true, Ordering::Relaxed);
        let done = commit();
        self.on.store(false, Ordering::Relaxed);
        done
    }

    /// Whether SQLite has let go of the WAL, as it does where the program chooses another journal mode.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

/// The methods of a WAL file with what they need. SQLite holds a pointer to the first field.
#[repr(C)]
struct Gathering {
    methods: sqlite3_io_methods,
    inner: *const sqlite3_io_methods,
    gather: Arc<Gather>,
    frames: Vec<u8>,
    /// Where in the file the gathered bytes begin.
    start: sqlite3_int64,
    /// The last header that was gathered marks a commit.
    commit: bool,
}

/// Puts the gathering methods in front of the main database's WAL file, which must be open. Without a WAL (a database in
/// memory) nothing happens, and commits are written as SQLite writes them.
pub fn gather_commits(sqlite: &Sqlite, gather: &Arc<Gather>) {
    let mut file: *mut sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is open, and this file control stores a `sqlite3_file *` through its argument.
    let status = unsafe {
        ffi::sqlite3_file_control(
            sqlite.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_JOURNAL_POINTER,
            (&raw mut file).cast::<c_void>(),
        )
    };
    // SAFETY: SQLite's pager owns the file, open or not, until it closes the connection; `pMethods` is null unless open.
    let inner = match unsafe { file.as_ref() } {
        Some(file) if status == ffi::SQLITE_OK && !file.pMethods.is_null() => file.pMethods,
        _ => return,
    };
    // SAFETY: the methods of an open file live as long as the file is open.
    let methods = unsafe { *inner };
    let gathering = Gathering {
        methods: sqlite3_io_methods {
            xClose: Some(close),
            xRead: Some(read),
            xWrite: Some(write),
            xTruncate: Some(truncate),
            xSync: Some(sync),
            xFileSize: Some(file_size),
            ..methods
        },
        inner,
        gather: Arc::clone(gather),
        frames: Vec::new(),
        start: 0,
        commit: false,
    };
    // SAFETY: `file` is open and used by this thread alone; `close` takes the box back.
    unsafe { (*file).pMethods = Box::into_raw(Box::new(gathering)).cast() };
}

impl Gathering {
    /// # Safety
    ///
    /// `file` must be a file whose methods `gather_commits` replaced.
    unsafe fn of<'a>(file: *mut sqlite3_file) -> &'a mut Gathering {
        // SAFETY: its methods are the first field of a boxed `Gathering`, which only `close` frees.
        unsafe { &mut *(*file).pMethods.cast_mut().cast::<Gathering>() }
    }

    fn inner(&self) -> &sqlite3_io_methods {
        // SAFETY: the methods of SQLite's VFS are static.
        unsafe { &*self.inner }
    }

    /// Writes what was gathered. What a failed COMMIT left is dropped instead: the write lock may be another's by now.
    unsafe fn flush(&mut self, file: *mut sqlite3_file) -> c_int {
        if self.frames.is_empty() {
            return ffi::SQLITE_OK;
        }
        let mut status = ffi::SQLITE_OK;
        if self.gather.is_on() {
            let mut offset = self.start;
            for part in self.frames.chunks(MOST_BYTES) {
                // SAFETY: `file` is open, and its own method gets bytes that live until it returns.
                status = unsafe {
                    let write = self.inner().xWrite;
                    write.map_or(ffi::SQLITE_IOERR, |write| {
                        write(file, part.as_ptr().cast(), part.len() as c_int, offset)
                    })
                };
                if status != ffi::SQLITE_OK {
                    break;
                }
                offset += part.len() as sqlite3_int64;
            }
        }
        self.frames.clear();
        status
    }

    fn end(&self) -> sqlite3_int64 {
        self.start + self.frames.len() as sqlite3_int64
    }
}

// SAFETY (of the functions below): SQLite calls them for a file whose methods were replaced, on the thread that uses
// the connection, with pointers that are valid for the lengths it passes.

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let gathering = unsafe { Gathering::of(file) };
    let size = length.max(0) as usize;
    let continues = !gathering.frames.is_empty() && offset == gathering.end();
    let header = size == FRAME_HEADER;
    if !gathering.gather.is_on() || !(header || continues) {
        return unsafe { after_flush(file, |inner| inner.xWrite.map(|write| write(file, data, length, offset))) };
    }
    if !continues {
        let flushed = unsafe { gathering.flush(file) };
        if flushed != ffi::SQLITE_OK {
            return flushed;
        }
        gathering.start = offset;
    }
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size) };
    if header {
        gathering.commit = bytes[COMMIT_MARK] != [0; 4];
    }
    gathering.frames.extend_from_slice(bytes);
    // A header is never written without its page: what follows it would be taken for something else.
    if header || !(gathering.commit || gathering.frames.len() >= MOST_BYTES) {
        return ffi::SQLITE_OK;
    }
    let complete = gathering.commit;
    let status = unsafe { gathering.flush(file) };
    if complete {
        // What SQLite writes after the commit's frame (checksums of frames that it wrote twice, padding before a sync)
        // has no end that could be recognised, so it goes straight through.
        gathering.gather.end();
    }
    status
}

/// Writes what was gathered, and then calls the file's own method.
unsafe fn after_flush(file: *mut sqlite3_file, call: impl FnOnce(&sqlite3_io_methods) -> Option<c_int>) -> c_int {
    let gathering = unsafe { Gathering::of(file) };
    match unsafe { gathering.flush(file) } {
        ffi::SQLITE_OK => call(gathering.inner()).unwrap_or(ffi::SQLITE_IOERR),
        failed => failed,
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, data: *mut c_void, length: c_int, offset: sqlite3_int64) -> c_int {
    unsafe { after_flush(file, |inner| inner.xRead.map(|read| read(file, data, length, offset))) }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    unsafe { after_flush(file, |inner| inner.xTruncate.map(|truncate| truncate(file, size))) }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    unsafe { after_flush(file, |inner| inner.xSync.map(|sync| sync(file, flags))) }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    unsafe { after_flush(file, |inner| inner.xFileSize.map(|size_of| size_of(file, size))) }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // Frames that were gathered and not written belong to no commit.
    let gathering = unsafe { Box::from_raw((*file).pMethods.cast_mut().cast::<Gathering>()) };
    gathering.gather.closed.store(true, Ordering::Relaxed);
    unsafe {
        (*file).pMethods = gathering.inner;
        gathering.inner().xClose.map_or(ffi::SQLITE_OK, |close| close(file))
    }
}
