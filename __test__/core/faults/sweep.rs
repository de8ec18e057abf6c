//! One operation, again and again on the same file, and each time another call of the VFS fails.

use std::collections::BTreeMap;

use syncline::error::Result;

use crate::scene::{Conditions, Scene, Template, assert_coded, run, seen};
use crate::vfs::{self, Call, Plan};

/// Calls of one operation that fail, at most, in the short form and in the long one.
const SHORT: usize = 80;
const LONG: usize = 800;

/// Whether this is the long form, that of `npm run soak`.
pub fn is_long() -> bool {
    std::env::var("SYNCLINE_SOAK").is_ok_and(|value| value == "1")
}

/// What was tried.
#[derive(Default)]
pub struct Tried {
    /// Calls of one operation that fail, at most, where there are very many operations.
    pub at_most: Option<usize>,
    operations: usize,
    faults: usize,
    survived: usize,
    calls: BTreeMap<Call, usize>,
}

impl Tried {
    pub fn print(&self, name: &str) {
        let calls: Vec<String> = self.calls.iter().map(|(call, count)| format!("{count} {call:?}")).collect();
        println!(
            "figures faults at every step, {name}: operations {}, faults {}, survived {}, calls {}",
            self.operations,
            self.faults,
            self.survived,
            calls.join(" ")
        );
    }

    /// Notes the calls of an operation that nothing failed in, and answers every plan for them. The short form has each call
    /// fail in one of its ways; of more calls than the bound there are as many, evenly.
    pub fn plans(&mut self, calls: &[Call]) -> Vec<Plan> {
        self.operations += 1;
        let mut plans = Vec::new();
        let most = self.at_most.unwrap_or(if is_long() { LONG } else { SHORT });
        let stride = calls.len().div_ceil(most);
        for (n, call) in calls.iter().enumerate() {
            *self.calls.entry(*call).or_default() += 1;
            if n % stride != 0 {
                continue;
            }
            let (ways, turn) = (call.faults().len(), n / stride);
            if is_long() {
                plans.extend((0..ways).map(|way| Plan::Once(n, way)));
                plans.push(Plan::From(n));
                plans.extend((*call == Call::Write).then_some(Plan::FullFrom(n)));
            } else {
                plans.push(Plan::Once(n, turn % ways));
                match turn % 4 {
                    1 => plans.push(Plan::From(n)),
                    3 if *call == Call::Write => plans.push(Plan::FullFrom(n)),
                    _ => {}
                }
            }
        }
        plans
    }

    pub fn note(&mut self, faults: usize, survived: bool) {
        self.faults += usize::from(faults > 0);
        self.survived += usize::from(faults > 0 && survived);
    }
}

/// Does `act` with each plan. What it does is one transaction, or changes nothing that can be seen.
pub fn sweep(
    tried: &mut Tried,
    template: &Template,
    conditions: Conditions,
    name: &str,
    act: &dyn Fn(&Scene) -> Result<()>,
) {
    let scene = template.scene(conditions);
    let before = seen(&scene.store);
    let (done, calls, _) = vfs::during(Plan::Count, || act(&scene));
    done.unwrap_or_else(|error| panic!("{name} without a fault: {error}"));
    let after = seen(&scene.store);
    assert_eq!(scene.crashed(), after, "{name}");
    assert_eq!(scene.reopened(), after, "{name}");

    for plan in tried.plans(&calls) {
        let what = format!("{name}, {conditions:?}, {plan:?} of {calls:?}");
        let scene = template.scene(conditions);
        // As in the first one, pages are in memory that the operation may need.
        seen(&scene.store);
        let (done, _, faults) = vfs::during(plan, || act(&scene));
        tried.note(faults, done.is_ok());
        if let Err(error) = &done {
            assert_coded(error, &what);
        }
        let crashed = scene.crashed();
        let live = seen(&scene.store);
        match done {
            Ok(()) => assert!(live == after && crashed == after, "{what} was acknowledged"),
            Err(error) => {
                assert!(live == before, "{what} failed, and did something: {error}\n{live}");
                assert!(crashed == before || crashed == after, "{what}: a crash leaves what is between\n{crashed}");
            }
        }
        goes_on(scene, &what);
    }
}

/// The store can be used as if nothing had happened, and what it acknowledges stays.
pub fn goes_on(scene: Scene, what: &str) {
    for n in 0..2 {
        run(&scene.store, "later", n, None).unwrap_or_else(|error| panic!("{what}: afterwards: {error}"));
    }
    if is_long() {
        assert_eq!(scene.beside(), seen(&scene.store), "{what}: beside it");
        run(&scene.store, "later", 3, None).unwrap_or_else(|error| panic!("{what}: after another: {error}"));
    }
    let live = seen(&scene.store);
    assert_eq!(scene.crashed(), live, "{what}: a crash later on");
    assert_eq!(scene.reopened(), live, "{what}: opened again");
}
