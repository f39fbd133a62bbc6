//! Shrinks a plan that breaks a promise.

use crate::{check::check, plan::Plan, simulation::run};

/// Returns a shorter plan that breaks the same rule. Leaves out ever smaller pieces of the plan,
/// with at most [`MAX_ATTEMPTS`] attempts.
#[must_use]
pub fn shrink(plan: &Plan, rule: &str) -> Plan {
    let still_fails = |plan: &Plan| check(&run(plan)).iter().any(|it| it.rule == rule);
    let mut plan = plan.clone();
    let mut piece = plan.steps.len().div_ceil(2);
    let mut attempts = 0;
    while piece > 0 && attempts < MAX_ATTEMPTS {
        let mut from = 0;
        let mut shrunk = false;
        while from < plan.steps.len() && attempts < MAX_ATTEMPTS {
            let to = (from + piece).min(plan.steps.len());
            let mut shorter = plan.clone();
            shorter.steps.drain(from..to);
            attempts += 1;
            if still_fails(&shorter) {
                plan = shorter;
                shrunk = true;
            } else {
                from = to;
            }
        }
        piece = if piece == 1 && shrunk { 1 } else { piece / 2 };
    }
    plan
}

const MAX_ATTEMPTS: usize = 600;
