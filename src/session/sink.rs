//! Collects what is to be sent on: mostly stretches of the input as they are, now and then something of our own between.
//!
//! As long as everything is one stretch of the input, nothing is copied: the caller writes it from where it was read.

use std::ops::Range;

pub struct Sink<'a> {
    input: &'a [u8],
    /// The stretch of `input` not yet copied to `out`.
    run: Range<usize>,
    out: &'a mut Vec<u8>,
}

impl<'a> Sink<'a> {
    pub fn new(input: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        Sink { input, run: 0..0, out }
    }

    /// `input[from..to]` is sent on.
    #[inline]
    pub fn pass(&mut self, from: usize, to: usize) {
        if self.run.end == from && !self.run.is_empty() {
            self.run.end = to;
        } else {
            self.settle();
            self.run = from..to;
        }
    }

    fn settle(&mut self) {
        if !self.run.is_empty() {
            self.out.extend_from_slice(&self.input[self.run.clone()]);
            self.run = 0..0;
        }
    }

    /// Where to append bytes of our own at this place in the stream.
    pub fn insert(&mut self) -> &mut Vec<u8> {
        self.settle();
        self.out
    }

    /// The one stretch of the input that is everything there is to send, if nothing had to be copied; else everything
    /// is in `out` now.
    #[inline]
    pub fn finish(mut self) -> Range<usize> {
        if self.out.is_empty() {
            return self.run;
        }
        self.settle();
        0..0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stretch_is_not_copied() {
        let mut out = Vec::new();
        let mut sink = Sink::new(b"abcdef", &mut out);
        sink.pass(0, 2);
        sink.pass(2, 5);
        assert_eq!(sink.finish(), 0..5);
        assert!(out.is_empty());
    }

    #[test]
    fn what_is_inserted_keeps_its_place() {
        let mut out = Vec::new();
        let mut sink = Sink::new(b"abcdef", &mut out);
        sink.pass(0, 2);
        sink.insert().push(b'-');
        sink.pass(2, 3);
        sink.pass(5, 6);
        assert!(sink.finish().is_empty());
        assert_eq!(out, b"ab-cf");
    }
}
