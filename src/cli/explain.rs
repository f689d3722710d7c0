//! `pgbaton explain`: where a statement would go, and why.

use clap::Args;

use super::asking::read;
use super::{Asking, Outcome, aligned, ask};
use crate::session::explain::Explanation;

pub(super) const EXPLAIN_HELP: &str = "\
The statement is explained as that of a session that has just logged in: with the role's own defaults, and with nothing set
or seen. In a session of one's own, EXPLAIN ROUTE … says the same for that session.

Examples:
  pgbaton explain 'SELECT * FROM orders'
  pgbaton explain --database shop --user app --json 'SELECT next_number()'";

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The statement
    sql: String,
    /// The database it would run in [default: the only one that clients have connected to]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role it would run as, for its search_path and other defaults
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    pub(super) asking: Asking,
}

pub(super) fn explain(arguments: ExplainArguments) -> Outcome {
    let ExplainArguments { sql, database, user, asking } = arguments;
    let mut question = vec![("sql", sql.as_str())];
    question.extend(database.as_deref().map(|name| ("database", name)));
    question.extend(user.as_deref().map(|name| ("user", name)));
    let answer = ask(&asking.admin, "/explain", &question)?;
    if asking.json {
        println!("{answer}");
        return Ok(());
    }
    let explanation: Explanation = read(&asking.admin, &answer)?;
    print!("{}", aligned(&explanation.rows().into_iter().map(Vec::from).collect::<Vec<_>>()));
    Ok(())
}
