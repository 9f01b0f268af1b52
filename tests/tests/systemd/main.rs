//! Under a service manager such as systemd: what it is told, and the unit file for it.

mod apps;
mod notify;
mod unit;
