//! PURE. What a launcher counts and measures, as a page of text for Prometheus: from the snapshot that
//! `status` shows, and from [`Tallies`], which keep counters from going back when a worker or a group
//! that they were read from is gone. The page is written by hand, because it comes in two formats.

mod families;
mod page;
mod tallies;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    families::{FAMILIES, Family, Kind},
    page::{Decision, render},
    tallies::{Counts, GroupKey, Outcome, Restart, Tallies, Used},
    text::{Format, negotiate},
};
