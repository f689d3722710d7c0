//! How answers look on a terminal: columns, and colours where there is somebody to see them.

use std::io::IsTerminal;

/// Columns, when the terminal does not say how many it has.
const USUAL_WIDTH: usize = 100;

#[derive(Clone, Copy)]
pub(super) enum Colour {
    Green,
    Yellow,
    Red,
}

/// How what is printed on standard output may look.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    is_on: bool,
}

impl Paint {
    /// On a terminal, unless NO_COLOR is set to something (<https://no-color.org>), or the terminal is a dumb one.
    pub(super) fn of_stdout() -> Paint {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Paint { is_on: std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    #[cfg(test)]
    pub(super) fn none() -> Paint {
        Paint { is_on: false }
    }

    pub(super) fn paint(self, text: &str, colour: Colour) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
        };
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How many characters a line of the terminal of standard error takes.
pub(super) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(USUAL_WIDTH)
}

/// Columns two blanks apart.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| seen(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let pad = |(cell, width): (&String, &usize)| format!("{cell}{}", " ".repeat(width.saturating_sub(seen(cell))));
        let cells: Vec<String> = row.iter().zip(&widths).map(pad).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// How many characters are seen of it: colours take no room.
fn seen(cell: &str) -> usize {
    let mut count = 0;
    let mut is_colour = false;
    for character in cell.chars() {
        match character {
            '\x1b' => is_colour = true,
            'm' if is_colour => is_colour = false,
            _ if is_colour => {}
            _ => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let painted = Paint { is_on: true }.paint("down", Colour::Red);
        assert_eq!(
            aligned(&[row(["node", "x"]), row([&painted, "y"]), row(["n", "z"])]),
            "node  x\n\x1b[31mdown\x1b[0m  y\nn     z\n"
        );
        assert_eq!(Paint::none().paint("down", Colour::Red), "down");
    }
}
