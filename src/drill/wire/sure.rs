//! The same client for who knows what the answer has to be, as tests do: anything else is a panic that says what it was.

use super::{Answer, Batch, Login, Wire};

impl Answer {
    /// The only value of the only row.
    #[track_caller]
    pub fn value(&self) -> &str {
        assert!(self.errors.is_empty() && self.rows.len() == 1 && self.rows[0].len() == 1, "not one value: {self:?}");
        self.rows[0][0].as_deref().unwrap_or("(null)")
    }

    /// The SQLSTATE of the only error.
    #[track_caller]
    pub fn code(&self) -> &str {
        assert_eq!(self.errors.len(), 1, "not one error: {self:?}");
        &self.errors[0].code
    }

    #[track_caller]
    pub fn ok(self) -> Answer {
        assert!(self.errors.is_empty(), "{self:?}");
        self
    }
}

impl Login {
    #[track_caller]
    pub fn connect(&self) -> Wire {
        match self.attempt() {
            Ok(Ok(wire)) => wire,
            other => panic!("no login as {}: {:?}", self.user, other.map(|said| said.err())),
        }
    }
}

impl Wire {
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Answer {
        match self.ask(Batch::new().query(sql)) {
            Ok(answer) => answer,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// A query that must succeed with one value.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        self.query(sql).value().to_owned()
    }

    /// A statement that must succeed.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Answer {
        let answer = self.query(sql);
        assert!(answer.errors.is_empty(), "{sql}: {:?}", answer.errors);
        answer
    }

    #[track_caller]
    pub fn batch(&mut self, batch: Batch) -> Answer {
        match self.ask(batch) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
    }
}
