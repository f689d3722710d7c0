//! Text on its way into a page: escaped, bounded, and without characters that could make it look like something else.
//!
//! A report is sent around and opened by others. What stands in it was said by servers, programs and users.

use std::fmt::{self, Display, Formatter, Write as _};

/// Characters of one text that are shown: an error message may hold a whole statement.
const LONGEST: usize = 2000;

/// Displays a text as HTML, good for content and for attributes in double quotes.
pub struct Text<'t>(pub &'t str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.chars().enumerate() {
            if at == LONGEST {
                return write!(out, " … ({} more characters)", self.0.chars().count() - LONGEST);
            }
            match c {
                '&' => out.write_str("&amp;")?,
                '<' => out.write_str("&lt;")?,
                '>' => out.write_str("&gt;")?,
                '"' => out.write_str("&quot;")?,
                '\'' => out.write_str("&#39;")?,
                '\n' | '\t' => out.write_char(c)?,
                _ if is_deceptive(c) => out.write_char('\u{FFFD}')?,
                _ => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// What has no place in a page (control characters, noncharacters), and what turns the order of the text that follows.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        || matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF)
        || matches!(c, '\u{FDD0}'..='\u{FDEF}')
}

/// A name that can stand behind a `#`: of letters, digits and hyphens.
pub fn anchor(text: &str, number: usize) -> String {
    let plain: String =
        text.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    format!("run-{number}-{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(Text("<b a=\"x\" b='y'>&amp;\n").to_string(), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;\n");
        assert_eq!(Text("a\0b\u{1b}[31m\u{202e}c").to_string(), "a\u{FFFD}b\u{FFFD}[31m\u{FFFD}c");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let shown = Text(&"é".repeat(LONGEST + 7)).to_string();
        assert!(shown.ends_with("é … (7 more characters)"));
        assert_eq!(Text(&"é".repeat(LONGEST)).to_string(), "é".repeat(LONGEST));
    }

    #[test]
    fn an_anchor_is_a_plain_name() {
        assert_eq!(anchor("Kill \"primary\"", 3), "run-3-kill--primary-");
    }
}
