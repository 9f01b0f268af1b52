//! Measures what kernel steering buys, against the alternatives.
//!
//! [`steer`] measures the launcher as it is, for its developers (`cargo xtask bench-steer`).

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the report decodes what the generator encodes")
)]
mod latency;
#[expect(dead_code, reason = "its users come next")]
mod model;
mod steer;

pub use steer::{STEER_VERB, WORKER_VERB, steer_main, worker_main};
