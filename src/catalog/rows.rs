//! Reading the columns of an answer.

use super::graph::{Object, Sort};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog could not be read")]
    Query(#[from] tokio_postgres::Error),
    #[error("the catalog gave an answer this version does not understand: {0}")]
    Answer(&'static str),
    #[error("the reading of the catalog was stopped")]
    Stopped,
}

impl CatalogError {
    pub(super) const UNKNOWN_OBJECT: CatalogError = CatalogError::Answer("an unknown kind of object");
}

pub(super) fn rows(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = &SimpleQueryRow> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// A column that may hold bytes which are no text (a database in SQL_ASCII).
pub(super) fn readable(row: &SimpleQueryRow, column: usize) -> Option<&str> {
    row.try_get(column).ok().flatten()
}

pub(super) fn text(row: &SimpleQueryRow, column: usize) -> Result<&str, CatalogError> {
    readable(row, column).ok_or(CatalogError::Answer("a missing column"))
}

pub(super) fn boolean(row: &SimpleQueryRow, column: usize) -> Result<bool, CatalogError> {
    Ok(text(row, column)? == "t")
}

pub(super) fn as_number<N: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Result<N, CatalogError> {
    text(row, column)?.parse().map_err(|_| CatalogError::Answer("a number that is none"))
}

pub(super) fn oid(row: &SimpleQueryRow, column: usize) -> Result<u32, CatalogError> {
    as_number(row, column)
}

pub(super) fn object(row: &SimpleQueryRow, column: usize) -> Result<Object, CatalogError> {
    let sort = Sort::of(text(row, column)?).ok_or(CatalogError::UNKNOWN_OBJECT)?;
    Ok((sort, oid(row, column + 1)?))
}
