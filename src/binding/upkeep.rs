//! Jobs on a store's file. They are rare, and tell much: what they say crosses as JSON text.

use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::{AsyncTask, Env, External, Task};
use napi_derive::napi;
use parking_lot::Mutex;
use serde_json::json;

use super::coded_error::OrThrow;
use super::store::Handle;
use crate::error::{Error, Result};
use crate::store::Errand;

/// A job that is on its way.
pub type JobHandle = External<Arc<Mutex<Option<Errand>>>>;

/// Begins maintenance; `idle`: aggregates that do not move from now on are packed whole.
#[napi(catch_unwind, ts_return_type = "Job")]
pub fn maintenance(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    idle: bool,
    rewrite: bool,
) -> napi::Result<JobHandle> {
    Ok(job(handle.maintenance(idle, rewrite).or_throw(env)?))
}

/// Begins a copy of the file into one that is not there yet.
#[napi(catch_unwind, ts_return_type = "Job")]
pub fn backup(env: &Env, #[napi(ts_arg_type = "Handle")] handle: &Handle, target: String) -> napi::Result<JobHandle> {
    Ok(job(handle.backup(&target).or_throw(env)?))
}

/// What the files and the log hold, as JSON text.
#[napi(catch_unwind)]
pub fn stats(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    largest: u32,
    aggregates: u32,
) -> napi::Result<String> {
    let stats = handle.stats(largest as usize, aggregates as usize).or_throw(env)?;
    Ok(json!(stats).to_string())
}

/// Begins to verify the file.
#[napi(catch_unwind, ts_return_type = "Job")]
pub fn verification(
    env: &Env,
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    repair: bool,
) -> napi::Result<JobHandle> {
    Ok(job(handle.verification(repair).or_throw(env)?))
}

fn job(errand: Errand) -> JobHandle {
    External::new(Arc::new(Mutex::new(Some(errand))))
}

/// Steps of a job, on a thread of the pool.
pub struct Steps {
    errand: Arc<Mutex<Option<Errand>>>,
    lasting: Duration,
}

impl Task for Steps {
    type Output = String;
    type JsValue = String;

    fn compute(&mut self) -> napi::Result<String> {
        // A task that is left behind by its caller may meet the next one.
        let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            told(&mut self.errand.lock(), |errand| errand.step(self.lasting))
        }));
        Ok(stepped.unwrap_or_else(|_| failure(&Error::Poisoned("A job on the file has failed".to_owned()))))
    }

    fn resolve(&mut self, _: Env, output: String) -> napi::Result<String> {
        Ok(output)
    }
}

/// Does steps of a job for some milliseconds: `{more, report}` or `{code, message, fields}` as JSON text.
#[napi(catch_unwind, ts_return_type = "Promise<string>")]
pub fn job_step(#[napi(ts_arg_type = "Job")] job: &JobHandle, milliseconds: u32) -> AsyncTask<Steps> {
    let errand: &Arc<Mutex<Option<Errand>>> = job;
    AsyncTask::new(Steps { errand: Arc::clone(errand), lasting: Duration::from_millis(milliseconds.into()) })
}

/// Whether a job has no connection of its own: its steps are those of `jobStepHere`.
#[napi(catch_unwind)]
pub fn job_is_here(#[napi(ts_arg_type = "Job")] job: &JobHandle) -> bool {
    job.lock().as_ref().is_some_and(Errand::is_here)
}

/// The same as `jobStep` for such a job, on the calling thread.
#[napi(catch_unwind)]
pub fn job_step_here(
    #[napi(ts_arg_type = "Handle")] handle: &Handle,
    #[napi(ts_arg_type = "Job")] job: &JobHandle,
    milliseconds: u32,
) -> String {
    told(&mut job.lock(), |errand| handle.step(errand, Duration::from_millis(milliseconds.into())))
}

/// Ends a job, and closes its connection; again is nothing.
#[napi(catch_unwind)]
pub fn job_end(#[napi(ts_arg_type = "Job")] job: &JobHandle) {
    job.lock().take();
}

fn told(errand: &mut Option<Errand>, step: impl FnOnce(&mut Errand) -> Result<bool>) -> String {
    let Some(errand) = errand else { return failure(&Error::Closed("job")) };
    match step(errand) {
        Ok(more) => json!({"more": more, "report": errand.report()}).to_string(),
        Err(error) => failure(&error),
    }
}

fn failure(error: &Error) -> String {
    json!({"code": error.code(), "message": error.to_string(), "fields": error.fields()}).to_string()
}
