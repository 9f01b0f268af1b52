//! PURE. What a benchmark has found, for its readers: a table, JSON, a picture, a page.

mod columns;
mod html;
mod json;
mod show;
mod summary;
mod svg;
mod table;
mod words;

#[cfg(test)]
mod fixture;

pub(crate) use self::{html::html, json::json, svg::svg, table::table};
