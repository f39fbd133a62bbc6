//! The manual: one page for each topic.
//!
//! The pages are those of `docs/` in the repository; `docs/README.md` lists them in the order in
//! which to read them. Their code is compiled and run by the tests.

/// Makes one module of each page, and gives every page the definitions of the links between them.
/// A page defines the same links at its end, for readers of the file: Markdown takes the first
/// definition, so in this documentation a link leads to the module.
macro_rules! pages {
    ($($module:ident: $file:literal,)*) => {
        pages!(
            @links concat!(
                $("[", stringify!($module), "]: crate::manual::", stringify!($module), "\n",)* "\n"
            );
            $($module: $file,)*
        );
    };
    (@links $links:expr; $($module:ident: $file:literal,)*) => {
        $(
            #[doc = $links]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $module {}
        )*
    };
}

pages! {
    quick_start: "quick-start.md",
    step_by_step: "step-by-step.md",
    concepts: "concepts.md",
    keys_and_values: "keys-and-values.md",
    loading: "loading.md",
    timeouts_and_fail_safe: "timeouts-and-fail-safe.md",
    negative_results_and_errors: "negative-results-and-errors.md",
    invalidation: "invalidation.md",
    many_caches: "many-caches.md",
    redis: "redis.md",
    choosing_a_bus: "choosing-a-bus.md",
    guarantees: "guarantees.md",
    reading_your_own_writes: "reading-your-own-writes.md",
    invalidating_from_elsewhere: "invalidating-from-elsewhere.md",
    production_checklist: "production-checklist.md",
    metrics: "metrics.md",
    observability: "observability.md",
    runbook: "runbook.md",
    security: "security.md",
    options: "options.md",
    events: "events.md",
    errors: "errors.md",
    wire_format: "wire-format.md",
    testing: "testing.md",
    migrating: "migrating.md",
    faq: "faq.md",
    stability: "stability.md",
}
