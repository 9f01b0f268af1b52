//! The control socket: what a launcher can be asked while it runs, the side that answers and the
//! side that asks.

pub mod client;
mod connection;
pub mod protocol;
pub mod server;
#[cfg(test)]
mod tests;
