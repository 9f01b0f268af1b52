//! Both sides of the control socket, in one process unless a process must end.

mod launcher;
mod protocol;
mod server;
mod stop;
mod verbs;
