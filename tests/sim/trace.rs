//! What happened in a run: a hash of it always, the text only when somebody is going to read it.

#[derive(Clone, Default, Debug)]
pub struct Trace {
    /// `None`: nobody reads it.
    lines: Option<Vec<String>>,
    hash: u64,
}

impl Trace {
    pub fn new(is_kept: bool) -> Trace {
        Trace { lines: is_kept.then(Vec::new), hash: 0xCBF2_9CE4_8422_2325 }
    }

    pub fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
    }

    pub fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    pub fn say(&mut self, now: u64, text: String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>3}.{:03}  {text}", now / 1000, now % 1000));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
