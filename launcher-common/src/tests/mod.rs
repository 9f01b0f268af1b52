//! What the shared code promises.

mod choose;
mod flows;
mod least;
mod load;
mod source;
