//! A VFS in front of SQLite's own one that fails where a test says: at the n-th call of this thread, or at each from the
//! n-th on. It becomes the default one of the process, and does what SQLite's does as long as nothing is asked of it. Nothing
//! is synced: what a crash leaves is looked at by copying the files, and the tests are many.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

/// What SQLite asks of the VFS, as far as it can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    Open,
    Delete,
    Access,
    Read,
    Write,
    Truncate,
    Sync,
    Size,
    Lock,
    Unlock,
    IsReserved,
    MapShared,
    LockShared,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done.
    Nothing(c_int),
    /// Half of it was written.
    Half(c_int),
    /// All of it was done.
    All(c_int),
}

impl Call {
    /// How it may fail.
    pub fn faults(self) -> &'static [Fault] {
        use Fault::{All, Half, Nothing};
        match self {
            Call::Open => &[Nothing(ffi::SQLITE_CANTOPEN)],
            Call::Delete => &[Nothing(ffi::SQLITE_IOERR_DELETE), All(ffi::SQLITE_IOERR_DIR_FSYNC)],
            Call::Access => &[Nothing(ffi::SQLITE_IOERR_ACCESS)],
            Call::Read => &[Nothing(ffi::SQLITE_IOERR_READ)],
            Call::Write => &[Nothing(ffi::SQLITE_IOERR_WRITE), Half(ffi::SQLITE_FULL), All(ffi::SQLITE_IOERR_WRITE)],
            Call::Truncate => &[Nothing(ffi::SQLITE_IOERR_TRUNCATE), All(ffi::SQLITE_IOERR_TRUNCATE)],
            Call::Sync => &[Nothing(ffi::SQLITE_IOERR_FSYNC)],
            Call::Size => &[Nothing(ffi::SQLITE_IOERR_FSTAT)],
            Call::Lock => &[Nothing(ffi::SQLITE_IOERR_LOCK), Nothing(ffi::SQLITE_BUSY)],
            Call::Unlock => &[All(ffi::SQLITE_IOERR_UNLOCK)],
            Call::IsReserved => &[Nothing(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK)],
            Call::MapShared => &[Nothing(ffi::SQLITE_IOERR_SHMMAP)],
            Call::LockShared => &[Nothing(ffi::SQLITE_IOERR_SHMLOCK), Nothing(ffi::SQLITE_BUSY)],
        }
    }
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// None: they are only counted.
    Count,
    /// The n-th, in one of the ways in which it may.
    Once(usize, usize),
    /// The n-th and all after it.
    From(usize),
    /// The disk is full from the n-th on: what writes fails, the first time in the middle.
    FullFrom(usize),
}

/// What files are opened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// What there is.
    Usual,
    /// One that may harm what stands beside what is written, up to the borders of a sector.
    Sectors,
    /// One that maps no shared memory.
    RefusesSharedMemory,
    /// One whose VFS knows of none.
    WithoutSharedMemory,
}

struct Script {
    plan: Option<Plan>,
    calls: Vec<Call>,
    faults: usize,
    disk: Disk,
}

thread_local! {
    static SCRIPT: RefCell<Script> =
        const { RefCell::new(Script { plan: None, calls: Vec::new(), faults: 0, disk: Disk::Usual }) };
}

/// Does `act` with a plan, and answers what it did, which calls it made, and how many of them failed.
pub fn during<T>(plan: Plan, act: impl FnOnce() -> T) -> (T, Vec<Call>, usize) {
    SCRIPT.with_borrow_mut(|script| {
        (script.plan, script.faults) = (Some(plan), 0);
        script.calls.clear();
    });
    let done = act();
    SCRIPT.with_borrow_mut(|script| {
        script.plan = None;
        (done, std::mem::take(&mut script.calls), script.faults)
    })
}

/// Does `act`, which opens its files on such a disk.
pub fn on<T>(disk: Disk, act: impl FnOnce() -> T) -> T {
    SCRIPT.with_borrow_mut(|script| script.disk = disk);
    let done = act();
    SCRIPT.with_borrow_mut(|script| script.disk = Disk::Usual);
    done
}

fn disk() -> Disk {
    SCRIPT.with_borrow(|script| script.disk)
}

/// Whether, and how, this call fails.
fn fault(call: Call) -> Option<Fault> {
    SCRIPT.with_borrow_mut(|script| {
        let plan = script.plan?;
        let at = script.calls.len();
        script.calls.push(call);
        let fault = match plan {
            Plan::Once(n, way) if n == at => call.faults().get(way).copied(),
            Plan::From(n) if at >= n => Some(call.faults()[0]),
            Plan::FullFrom(n) if at >= n && call == Call::Write => {
                Some(if script.faults == 0 { Fault::Half(ffi::SQLITE_FULL) } else { Fault::Nothing(ffi::SQLITE_FULL) })
            }
            _ => None,
        };
        script.faults += usize::from(fault.is_some());
        fault
    })
}

/// Does a call, or fails it.
fn perform(call: Call, act: impl FnOnce() -> c_int) -> c_int {
    match fault(call) {
        None => act(),
        Some(Fault::Nothing(code) | Fault::Half(code)) => code,
        Some(Fault::All(code)) => match act() {
            ffi::SQLITE_OK => code,
            failed => failed,
        },
    }
}

/// Bytes before the file of SQLite's own VFS, which hold ours.
const HEAD: usize = 16;

struct Vfs(*mut sqlite3_vfs);

// SAFETY: what is behind the pointer is made once, and never changes.
unsafe impl Send for Vfs {}
// SAFETY: likewise.
unsafe impl Sync for Vfs {}

static INNER: OnceLock<Vfs> = OnceLock::new();

/// Makes this VFS the default one of the process. Again is nothing.
pub fn install() {
    INNER.get_or_init(|| {
        // SAFETY: the default VFS is there as long as the process, and a copy of it with other methods is one, too. Its other
        // methods use nothing but what the copy has as well.
        unsafe {
            let inner = ffi::sqlite3_vfs_find(ptr::null());
            let outer = sqlite3_vfs {
                szOsFile: (*inner).szOsFile + HEAD as c_int,
                pNext: ptr::null_mut(),
                zName: c"faults".as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                ..*inner
            };
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(Box::new(outer)), 1), ffi::SQLITE_OK);
            Vfs(inner)
        }
    });
}

fn vfs() -> *mut sqlite3_vfs {
    INNER.get().expect("it is installed").0
}

// SAFETY (of everything below): SQLite calls it with files that `open` made, of which the inner one begins after `HEAD`
// bytes, and with pointers that are valid for the lengths it passes.

unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    unsafe { file.byte_add(HEAD) }
}

unsafe fn methods<'a>(file: *mut sqlite3_file) -> &'a sqlite3_io_methods {
    unsafe { &*(*inner(file)).pMethods }
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    unsafe { (*file).pMethods = ptr::null() };
    perform(Call::Open, || unsafe {
        let opened = (*vfs()).xOpen.unwrap()(vfs(), name, inner(file), flags, out);
        if opened == ffi::SQLITE_OK {
            (*file).pMethods = if disk() == Disk::WithoutSharedMemory { &WITHOUT_SHARED } else { &METHODS };
        }
        opened
    })
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    perform(Call::Delete, || unsafe { (*vfs()).xDelete.unwrap()(vfs(), name, 0) })
}

unsafe extern "C" fn access(_: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    perform(Call::Access, || unsafe { (*vfs()).xAccess.unwrap()(vfs(), name, flags, out) })
}

const METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map_shared),
    xShmLock: Some(lock_shared),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap_shared),
    xFetch: None,
    xUnfetch: None,
};

const WITHOUT_SHARED: sqlite3_io_methods = sqlite3_io_methods { iVersion: 1, ..METHODS };

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    unsafe { methods(file).xClose.unwrap()(inner(file)) }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, length: c_int, offset: sqlite3_int64) -> c_int {
    perform(Call::Read, || unsafe { methods(file).xRead.unwrap()(inner(file), to, length, offset) })
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    let write = |length: c_int| unsafe { methods(file).xWrite.unwrap()(inner(file), data, length, offset) };
    match fault(Call::Write) {
        None => write(length),
        Some(Fault::Nothing(code)) => code,
        Some(Fault::Half(code)) => {
            write(length / 2);
            code
        }
        Some(Fault::All(code)) => {
            write(length);
            code
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    perform(Call::Truncate, || unsafe { methods(file).xTruncate.unwrap()(inner(file), size) })
}

unsafe extern "C" fn sync(_: *mut sqlite3_file, _: c_int) -> c_int {
    perform(Call::Sync, || ffi::SQLITE_OK)
}

unsafe extern "C" fn size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    perform(Call::Size, || unsafe { methods(file).xFileSize.unwrap()(inner(file), size) })
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    perform(Call::Lock, || unsafe { methods(file).xLock.unwrap()(inner(file), level) })
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    perform(Call::Unlock, || unsafe { methods(file).xUnlock.unwrap()(inner(file), level) })
}

unsafe extern "C" fn is_reserved(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    perform(Call::IsReserved, || unsafe { methods(file).xCheckReservedLock.unwrap()(inner(file), out) })
}

unsafe extern "C" fn control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    unsafe { methods(file).xFileControl.unwrap()(inner(file), operation, argument) }
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    unsafe { methods(file).xSectorSize.unwrap()(inner(file)) }
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    let all = unsafe { methods(file).xDeviceCharacteristics.unwrap()(inner(file)) };
    if disk() == Disk::Sectors { all & !ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE } else { all }
}

unsafe extern "C" fn map_shared(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    if disk() == Disk::RefusesSharedMemory {
        return ffi::SQLITE_IOERR_SHMMAP;
    }
    perform(Call::MapShared, || unsafe { methods(file).xShmMap.unwrap()(inner(file), region, size, extend, out) })
}

unsafe extern "C" fn lock_shared(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    let act = || unsafe { methods(file).xShmLock.unwrap()(inner(file), offset, count, flags) };
    // SQLite does not ask whether giving a lock back has failed.
    if flags & ffi::SQLITE_SHM_UNLOCK == 0 { perform(Call::LockShared, act) } else { act() }
}

unsafe extern "C" fn barrier(file: *mut sqlite3_file) {
    unsafe { methods(file).xShmBarrier.unwrap()(inner(file)) };
}

unsafe extern "C" fn unmap_shared(file: *mut sqlite3_file, delete: c_int) -> c_int {
    unsafe { methods(file).xShmUnmap.unwrap()(inner(file), delete) }
}
