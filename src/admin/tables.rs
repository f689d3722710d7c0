//! What the console shows that only pgbaton has, as tables. What PgBouncer has too is in `pgbouncer`.

use super::picture;
use crate::cluster;
use crate::session::explain::Explanation;
use crate::session::shared::Shared;
use crate::types::calendar;

/// What a column holds, and how its type is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    Text(&'static str),
    /// `bigint`: programs that add figures up may not read them from text.
    Number(&'static str),
}

impl Column {
    pub fn name(self) -> &'static str {
        match self {
            Column::Text(name) | Column::Number(name) => name,
        }
    }
}

pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Option<String>>>,
    pub tag: String,
}

impl Table {
    /// All of it is text.
    pub fn shown(columns: &[&'static str], rows: Vec<Vec<Option<String>>>) -> Table {
        Table::of(&columns.iter().copied().map(Column::Text).collect::<Vec<_>>(), rows)
    }

    pub fn of(columns: &[Column], rows: Vec<Vec<Option<String>>>) -> Table {
        Table { columns: columns.to_vec(), rows, tag: "SHOW".into() }
    }

    /// For a command that answers with nothing but that it is done.
    pub fn done(tag: &str) -> Table {
        Table { columns: Vec::new(), rows: Vec::new(), tag: tag.into() }
    }

    /// The same under another tag.
    pub fn tagged(self, tag: &str) -> Table {
        Table { tag: tag.into(), ..self }
    }
}

pub(super) fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

pub(super) fn yes(is: bool) -> Option<String> {
    text(if is { "yes" } else { "" })
}

pub fn nodes(shared: &Shared, believed: &cluster::Picture) -> Table {
    let rows = picture::nodes(shared, Some(believed)).into_iter().map(|node| {
        vec![
            Some(node.id),
            Some(node.host),
            text(node.port),
            text(node.role),
            text(node.state),
            text(node.timeline),
            Some(node.lsn),
            yes(node.eligible),
            Some(node.reason),
        ]
    });
    Table::shown(&["id", "host", "port", "role", "state", "timeline", "lsn", "eligible", "reason"], rows.collect())
}

pub fn lag(shared: &Shared) -> Table {
    let rows = picture::nodes(shared, None).into_iter().map(|node| {
        vec![
            Some(node.id),
            text(node.role),
            yes(node.eligible),
            Some(node.reason),
            node.lag_bytes.map(|bytes| bytes.to_string()),
            node.lag_ms.map(|ms| ms.to_string()),
            node.read.replayed,
            text(node.timeline),
            text(node.read.weight),
            yes(node.read.is_near),
            text(node.read.in_use),
            text(node.read.served),
        ]
    });
    let columns = &[
        "node",
        "role",
        "eligible",
        "reason",
        "lag_bytes",
        "lag_ms",
        "replayed",
        "timeline",
        "weight",
        "near",
        "in_use",
        "served",
    ];
    Table::shown(columns, rows.collect())
}

pub fn routes(shared: &Shared) -> Table {
    let rows = shared.routes.all().into_iter();
    let rows = rows.map(|(class, target, why, count)| vec![text(class), text(target), text(why), text(count)]);
    Table::shown(&["class", "target", "reason", "count"], rows.collect())
}

pub fn explanation(explanation: &Explanation) -> Table {
    let rows = explanation.rows().into_iter().map(|row| row.map(Some).to_vec());
    Table::shown(&["item", "value"], rows.collect()).tagged("EXPLAIN")
}

/// Seconds since 1970 as `YYYY-MM-DD hh:mm:ss UTC`.
pub fn utc(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = calendar(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
    }
}
