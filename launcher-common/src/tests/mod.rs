//! What the shared code promises.

mod choose;
mod least;
mod load;
mod source;
