//! Runs any unmodified server on every core: one worker per CPU, one shared port, connections
//! steered in the kernel. See ARCHITECTURE.md for the map of this crate.

pub mod bench;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod failure;
pub mod fleet;
pub mod ipc;
pub mod metrics;
pub mod observe;
pub mod output;
pub mod paper;
pub mod policy;
pub mod probe;
pub mod run;
pub mod scrape;
pub mod steer;
pub mod sys;
pub mod top;
pub mod worker;
