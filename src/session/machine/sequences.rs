//! What a server connection remembers of sequences (`currval`, `lastval`), and whose memory that is.

use super::{Context, Machine, Tx};
use crate::sql::Pin;

impl Machine {
    /// Where currval or lastval are used, who may have advanced a sequence stays where that is remembered.
    pub(super) fn note_sequence(&mut self, text: &[u8], context: &Context<'_>) {
        if context.sequence_memory {
            self.advanced_last = may_advance_sequence(text);
            if self.advanced_last {
                self.happened.may_have_advanced = true;
                self.pins.insert(Pin::Sequence);
            }
        }
    }

    /// Before the first statement that may advance a sequence on a connection that others have used: what they left there of
    /// theirs must not be told to this session later.
    pub(super) fn forgets_first(&mut self, text: &[u8], context: &Context<'_>) -> bool {
        let forgets = context.sequence_memory
            && !self.undisturbed
            && !self.pins.contains(Pin::Sequence)
            && !self.done_before
            && self.is_quiet()
            && self.status != Tx::Failed
            && may_advance_sequence(text);
        self.undisturbed |= forgets;
        forgets
    }
}

/// Whether a text may advance a sequence that the client then asks about. A statement with RETURNING has its answer.
fn may_advance_sequence(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    let mentions = |word: &str| text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()));
    if begins("select") {
        return mentions("nextval") || mentions("setval");
    }
    ["insert", "copy", "merge", "with", "execute", "call"].iter().any(|word| begins(word)) && !mentions("returning")
}
