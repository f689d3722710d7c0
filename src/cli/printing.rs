//! How answers look on a terminal.

use std::io::Write as _;

pub(super) fn print_aligned(rows: Vec<Vec<String>>) {
    // Whoever reads may have seen enough (`| head`).
    let _ = std::io::stdout().lock().write_all(aligned(&rows).as_bytes());
}

/// Columns two blanks apart.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
