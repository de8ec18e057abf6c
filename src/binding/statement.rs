//! The connection's own statements, as JavaScript calls them: rows as flat arrays, and functions of the caller in SQL.

#![allow(unsafe_code)]

use std::ptr;
use std::rc::Rc;

use napi::bindgen_prelude::{Env, External, Function, FunctionRef, JsValue, Object, Unknown};
use napi::sys;
use napi_derive::napi;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};

use super::coded_error::OrThrow;
use super::store::Handle;
use super::value::{Maker, Raw, read_parameters, read_value};
use crate::statement::Prepared;

/// A statement of some connection, which is passed beside it.
pub type StatementHandle = External<Rc<Prepared>>;

/// Prepares exactly one statement.
#[napi(
    catch_unwind,
    ts_return_type = "[statement: Statement, reader: boolean, readonly: boolean, parameters: (string | null)[]]"
)]
pub fn prepare(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, sql: String) -> napi::Result<Raw> {
    let prepared = handle.prepare(sql).or_throw(env)?;
    let maker = Maker::new(env);
    let parameters: Vec<_> = prepared
        .parameters
        .iter()
        .map(|name| maker.text_or_null(name.as_deref().map(|name| name.trim_start_matches([':', '@', '$', '?']))))
        .collect();
    let (reader, readonly) = (maker.boolean(prepared.reader), maker.boolean(prepared.readonly));
    let statement = External::new(Rc::new(prepared)).into_unknown(env)?;
    Ok(maker.array(&[statement.raw(), reader, readonly, maker.array(&parameters).0]))
}

/// Five flat values a column: name, column, table, database, type.
#[napi(catch_unwind, ts_return_type = "(string | null)[]")]
pub fn columns(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let values: Vec<_> = handle
        .columns(statement)
        .or_throw(env)?
        .iter()
        .flat_map(|column| {
            [
                maker.text(column.name.as_bytes()),
                maker.text_or_null(column.column.as_deref()),
                maker.text_or_null(column.table.as_deref()),
                maker.text_or_null(column.database.as_deref()),
                maker.text_or_null(column.declared_type.as_deref()),
            ]
        })
        .collect();
    Ok(maker.array(&values))
}

/// Runs a statement; answers how many rows it changed and the last rowid.
#[napi(catch_unwind, ts_return_type = "[changes: number, lastInsertRowid: number | bigint]")]
pub fn statement_run(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
    #[napi(ts_arg_type = "unknown[]")] parameters: Unknown<'_>,
    safe_integers: bool,
) -> napi::Result<Raw> {
    let values = read_parameters(env, parameters.raw()).or_throw(env)?;
    let (changes, rowid) = handle.execute(statement, &values, &mut |_| Ok(true)).or_throw(env)?;
    let maker = Maker::new(env);
    let rowid = if safe_integers { maker.bigint(rowid) } else { maker.integer(rowid) };
    Ok(maker.array(&[maker.number(changes as f64), rowid]))
}

/// The first row, after the generation of its columns, or `null`.
#[napi(catch_unwind, ts_return_type = "unknown[] | null")]
pub fn statement_get(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
    #[napi(ts_arg_type = "unknown[]")] parameters: Unknown<'_>,
    safe_integers: bool,
) -> napi::Result<Raw> {
    let rows = collect(env, handle, statement, parameters, safe_integers, false)?;
    Ok(if rows.len() == 1 { Raw(Maker::new(env).null()) } else { Maker::new(env).array(&rows) })
}

/// All rows, one after the other, after the generation of their columns.
#[napi(catch_unwind, ts_return_type = "unknown[]")]
pub fn statement_all(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
    #[napi(ts_arg_type = "unknown[]")] parameters: Unknown<'_>,
    safe_integers: bool,
) -> napi::Result<Raw> {
    let rows = collect(env, handle, statement, parameters, safe_integers, true)?;
    Ok(Maker::new(env).array(&rows))
}

fn collect(
    env: &Env,
    handle: &Handle,
    statement: &StatementHandle,
    parameters: Unknown<'_>,
    safe_integers: bool,
    all: bool,
) -> napi::Result<Vec<sys::napi_value>> {
    let maker = Maker::new(env);
    let values = read_parameters(env, parameters.raw()).or_throw(env)?;
    let mut rows = vec![maker.null()];
    handle
        .execute(statement, &values, &mut |row| {
            push_row(maker, row, safe_integers, &mut rows)?;
            Ok(all)
        })
        .or_throw(env)?;
    rows[0] = maker.integer(statement.generation().into());
    Ok(rows)
}

fn push_row(
    maker: Maker,
    row: &rusqlite::Row<'_>,
    safe_integers: bool,
    values: &mut Vec<sys::napi_value>,
) -> crate::error::Result<()> {
    for index in 0..row.as_ref().column_count() {
        values.push(maker.column(row.get_ref(index)?, safe_integers)?);
    }
    Ok(())
}

/// Begins an iteration; answers its number.
#[napi(catch_unwind)]
pub fn cursor_open(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
    #[napi(ts_arg_type = "unknown[]")] parameters: Unknown<'_>,
) -> napi::Result<u32> {
    let values = read_parameters(env, parameters.raw()).or_throw(env)?;
    handle.open_cursor(statement, &values).or_throw(env)
}

/// The next row as `statementGet` gives it, or `null` at the end, which closes the iteration.
#[napi(catch_unwind, ts_return_type = "unknown[] | null")]
pub fn cursor_next(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Statement")] statement: &StatementHandle,
    cursor: u32,
    safe_integers: bool,
) -> napi::Result<Raw> {
    let maker = Maker::new(env);
    let mut values = vec![maker.null()];
    let more = handle.next_row(cursor, &mut |row| push_row(maker, row, safe_integers, &mut values)).or_throw(env)?;
    if !more {
        return Ok(Raw(maker.null()));
    }
    values[0] = maker.integer(statement.generation().into());
    Ok(maker.array(&values))
}

/// Ends an iteration; again is nothing.
#[napi(catch_unwind)]
pub fn cursor_close(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, cursor: u32) -> napi::Result<()> {
    handle.close_cursor(cursor).or_throw(env)
}

/// Runs every statement of a text.
#[napi(catch_unwind)]
pub fn exec(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, sql: String) -> napi::Result<()> {
    handle.execute_all(&sql).or_throw(env)
}

/// What a function of the caller is, besides its name.
#[napi(object)]
pub struct NativeFunctionOptions {
    /// −1 for any number.
    pub arguments: i32,
    /// The same arguments give the same value.
    pub deterministic: bool,
    /// Not from triggers and views.
    pub direct_only: bool,
    /// Integers arrive as bigints.
    pub safe_integers: bool,
}

/// Gives SQL a function. The TypeScript layer keeps a value that it throws and throws that very value again.
#[napi(catch_unwind)]
pub fn create_function(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    name: String,
    options: NativeFunctionOptions,
    #[napi(ts_arg_type = "(...parameters: any[]) => unknown")] called: Function<'_, Unknown<'_>, Unknown<'_>>,
) -> napi::Result<()> {
    let mut flags = FunctionFlags::SQLITE_UTF8;
    flags.set(FunctionFlags::SQLITE_DETERMINISTIC, options.deterministic);
    flags.set(FunctionFlags::SQLITE_DIRECTONLY, options.direct_only);
    let callback = Callback { env: env.raw(), function: to_reference(&called)?, safe_integers: options.safe_integers };
    handle.create_function(&name, options.arguments, flags, move |values| callback.call(values)).or_throw(env)
}

fn to_reference(function: &Function<'_, Unknown<'_>, Unknown<'_>>) -> napi::Result<FunctionRef<(), ()>> {
    // Only the reference is kept; the call below passes any number of arguments.
    let object = Object::from_raw(function.value().env, function.value().value);
    // SAFETY: the value is a function of the running environment.
    let function: Function<'_, (), ()> =
        unsafe { napi::bindgen_prelude::FromNapiValue::from_napi_value(object.value().env, object.raw())? };
    function.create_ref()
}

/// A JavaScript function that SQL calls, on the thread of its environment.
struct Callback {
    env: sys::napi_env,
    function: FunctionRef<(), ()>,
    safe_integers: bool,
}

// SAFETY: rusqlite asks for `Send` because a connection can move between threads. This one cannot: it belongs to a
// `Store` that only its environment's thread reaches, and SQLite calls functions on the thread that steps a statement.
unsafe impl Send for Callback {}

impl Callback {
    fn call(&self, values: &[ValueRef<'_>]) -> Result<Value, String> {
        let maker = Maker::of(self.env);
        // One statement can call a function millions of times before its own scope ends.
        let _scope = HandleScope::open(self.env);
        let arguments = values
            .iter()
            .map(|value| maker.column(*value, self.safe_integers))
            .collect::<crate::error::Result<Vec<_>>>()
            .map_err(|error| error.to_string())?;
        let env = Env::from_raw(self.env);
        let function = self.function.borrow_back(&env).map_err(|error| error.to_string())?;
        let (mut this, mut result) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a statement of this environment is being stepped, so its thread and a handle scope are ours.
        let status = unsafe {
            sys::napi_get_undefined(self.env, &mut this);
            sys::napi_call_function(self.env, this, function.raw(), arguments.len(), arguments.as_ptr(), &mut result)
        };
        if status != sys::Status::napi_ok {
            let mut thrown = ptr::null_mut();
            // SAFETY: as above. The thrown value itself is kept by the TypeScript layer.
            unsafe { sys::napi_get_and_clear_last_exception(self.env, &mut thrown) };
            return Err("a function of the program threw".to_owned());
        }
        read_value(self.env, result).map_err(|error| error.to_string())
    }
}

/// Frees the values that one call made when it ends.
struct HandleScope {
    env: sys::napi_env,
    scope: sys::napi_handle_scope,
}

impl HandleScope {
    fn open(env: sys::napi_env) -> Self {
        let mut scope = ptr::null_mut();
        // SAFETY: a call into this environment is running.
        unsafe { sys::napi_open_handle_scope(env, &mut scope) };
        HandleScope { env, scope }
    }
}

impl Drop for HandleScope {
    fn drop(&mut self) {
        // SAFETY: scopes are dropped in the reverse order of their opening, as values on the stack.
        unsafe { sys::napi_close_handle_scope(self.env, self.scope) };
    }
}
