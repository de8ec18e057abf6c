//! Adopting older tables, before a store opens their file. TypeScript drives, so that it can tell of the progress.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use napi::bindgen_prelude::{Env, External};
use napi_derive::napi;

use super::coded_error::OrThrow;
use super::store::{NativeOpenOptions, open_options};
use crate::adopt::Adoption;
use crate::error::Error;

/// Older tables that are being adopted; `None` once it has ended.
pub type AdoptionHandle = External<RefCell<Option<Adoption>>>;

/// Begins, or goes on, to adopt the older tables of a file; `null` where it has none.
#[napi(catch_unwind, ts_return_type = "Adoption | null")]
pub fn adopt_begin(env: &Env, path: String, options: NativeOpenOptions) -> napi::Result<Option<AdoptionHandle>> {
    let adoption = Adoption::begin(&open_options(path, &options)).or_throw(env)?;
    Ok(adoption.map(|adoption| External::new(RefCell::new(Some(adoption)))))
}

/// Goes on for some milliseconds: `{more, report}` as JSON text; at the end the report has findings.
#[napi(catch_unwind)]
pub fn adopt_step(
    env: &Env,
    #[napi(ts_arg_type = "Adoption")] adoption: &AdoptionHandle,
    milliseconds: u32,
) -> napi::Result<String> {
    let mut held = adoption.borrow_mut();
    let adoption = held.as_mut().ok_or_else(|| Error::Closed("adoption").into()).or_throw(env)?;
    let start = Instant::now();
    let mut more = true;
    while more && start.elapsed() < Duration::from_millis(milliseconds.into()) {
        more = adoption.step().or_throw(env)?;
    }
    let mut report = adoption.report();
    if !more
        && let (Some(report), serde_json::Value::Object(findings)) =
            (report.as_object_mut(), adoption.findings().or_throw(env)?)
    {
        report.extend(findings);
    }
    Ok(serde_json::json!({"more": more, "report": report}).to_string())
}

/// Ends it, done or not, and closes its connection; again is nothing.
#[napi(catch_unwind)]
pub fn adopt_end(#[napi(ts_arg_type = "Adoption")] adoption: &AdoptionHandle) {
    adoption.borrow_mut().take();
}
