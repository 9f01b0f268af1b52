//! Measures what kernel steering buys, against the alternatives.
//!
//! [`steer`] measures the launcher as it is, for its developers (`cargo xtask bench-steer`).

#[cfg_attr(not(test), expect(dead_code, reason = "its users come next"))]
mod latency;
mod model;
#[expect(unused_imports, reason = "its users come next")]
mod report;
mod stats;
mod steer;

pub use steer::{STEER_VERB, WORKER_VERB, steer_main, worker_main};
