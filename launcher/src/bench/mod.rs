//! Measures what kernel steering buys, against the alternatives.
//!
//! [`steer`] measures the launcher as it is, for its developers (`cargo xtask bench-steer`).

mod latency;
mod load;
#[expect(dead_code, reason = "its users come next")]
mod model;
mod sources;
mod steer;

pub use load::{LOAD_VERB, load_main};
pub use steer::{STEER_VERB, WORKER_VERB, steer_main, worker_main};
