//! Which act a statement is.

use super::walk::{Stop, UNKNOWN, Walk};
use super::{Act, Modes, Outline, Unreadable};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, CopyStmt, DeclareCursorStmt, DefElem, ExecuteStmt, ExplainStmt, Node, PrepareStmt, SelectStmt,
    TransactionStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt, a_const,
};

/// The bit of `DeclareCursorStmt::options` for WITH HOLD: CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h.
const HOLD: i32 = 0x20;

/// The settings that are modes of the running transaction.
const MODES: [&str; 3] = ["transaction_read_only", "transaction_isolation", "transaction_deferrable"];

pub(super) fn outline_of(node: Option<&Node>) -> Result<Outline, Unreadable> {
    make(|walk| act(walk, node.and_then(|node| node.node.as_ref()).ok_or(UNKNOWN)?))
}

/// The outline of whatever `read` makes of a statement.
fn make<'a>(read: impl FnOnce(&mut Walk<'a>) -> Result<Act, Stop>) -> Result<Outline, Unreadable> {
    let mut walk = Walk::default();
    match read(&mut walk) {
        Ok(act) => {
            let depends_on_constants = walk.depends_on_constants || depends_inside(&act);
            Ok(Outline { act, mentions: walk.mentions.into_list(), depends_on_constants })
        }
        Err(Stop::Writes(why)) => {
            Ok(Outline { act: Act::Write(why), mentions: Vec::new(), depends_on_constants: walk.depends_on_constants })
        }
        Err(Stop::TooDeep) => Err(Unreadable("it is nested too deeply".into())),
    }
}

fn depends_inside(act: &Act) -> bool {
    matches!(act, Act::Prepare(inner) | Act::Declare(inner) if inner.depends_on_constants)
}

fn act<'a>(walk: &mut Walk<'a>, statement: &'a NodeEnum) -> Result<Act, Stop> {
    match statement {
        NodeEnum::SelectStmt(select) => {
            walk.select(select)?;
            Ok(Act::Read(title(select)))
        }
        NodeEnum::ExplainStmt(explain) => explained(walk, explain),
        NodeEnum::CopyStmt(copy) => copied(walk, copy),
        NodeEnum::TransactionStmt(transaction) => transaction_act(transaction),
        NodeEnum::VariableSetStmt(set) => set_act(walk, set),
        NodeEnum::VariableShowStmt(show) => Ok(Act::Show(show.name.to_ascii_lowercase().into())),
        NodeEnum::PrepareStmt(prepare) => prepared(prepare),
        NodeEnum::ExecuteStmt(execute) => executed(walk, execute),
        NodeEnum::DeclareCursorStmt(declare) => declared(declare),
        NodeEnum::FetchStmt(_) | NodeEnum::ClosePortalStmt(_) => Ok(Act::Cursor),
        NodeEnum::ListenStmt(_) => Ok(Act::Session("LISTEN")),
        NodeEnum::UnlistenStmt(_) => Ok(Act::Session("UNLISTEN")),
        NodeEnum::NotifyStmt(_) => Ok(Act::Session("NOTIFY")),
        NodeEnum::LoadStmt(_) => Ok(Act::Session("LOAD")),
        NodeEnum::DiscardStmt(_) => Ok(Act::Session("DISCARD")),
        NodeEnum::DeallocateStmt(_) => Ok(Act::Session("DEALLOCATE")),
        other => {
            walk.kind(other)?;
            // Nothing else that is harmless is a statement.
            Err(UNKNOWN)
        }
    }
}

fn title(select: &SelectStmt) -> &'static str {
    if select.values_lists.is_empty() { "SELECT" } else { "VALUES" }
}

/// With ANALYZE or without: planning a query evaluates some of its functions, so both must be reads.
fn explained<'a>(walk: &mut Walk<'a>, explain: &'a ExplainStmt) -> Result<Act, Stop> {
    let inner = explain.query.as_deref().and_then(|node| node.node.as_ref()).ok_or(UNKNOWN)?;
    match inner {
        NodeEnum::SelectStmt(select) => {
            walk.select(select)?;
            Ok(Act::Read("EXPLAIN"))
        }
        NodeEnum::ExecuteStmt(execute) => executed(walk, execute),
        NodeEnum::DeclareCursorStmt(_) => Err(Stop::Writes("EXPLAIN DECLARE")),
        other => {
            walk.kind(other)?;
            Err(UNKNOWN)
        }
    }
}

fn copied<'a>(walk: &mut Walk<'a>, copy: &'a CopyStmt) -> Result<Act, Stop> {
    if copy.is_from {
        return Err(Stop::Writes("COPY … FROM"));
    }
    if copy.is_program {
        return Err(Stop::Writes("COPY … TO PROGRAM"));
    }
    if !copy.filename.is_empty() {
        return Err(Stop::Writes("COPY … TO a file"));
    }
    match (&copy.relation, &copy.query) {
        (Some(relation), None) => walk.relation(relation)?,
        (None, query @ Some(_)) => walk.needed(query)?,
        _ => return Err(UNKNOWN),
    }
    walk.optional(&copy.where_clause)?;
    Ok(Act::Read("COPY … TO STDOUT"))
}

fn transaction_act(transaction: &TransactionStmt) -> Result<Act, Stop> {
    use TransactionStmtKind::*;
    match transaction.kind() {
        TransStmtBegin | TransStmtStart => Ok(Act::Begin(modes(&transaction.options)?)),
        // The next block would be of the same kind as this one, which the text alone does not say.
        TransStmtCommit | TransStmtRollback if transaction.chain => Err(Stop::Writes("AND CHAIN")),
        TransStmtCommit | TransStmtRollback => Ok(Act::Transaction { ends: true }),
        TransStmtSavepoint | TransStmtRelease | TransStmtRollbackTo => Ok(Act::Transaction { ends: false }),
        TransStmtPrepare => Err(Stop::Writes("PREPARE TRANSACTION")),
        TransStmtCommitPrepared => Err(Stop::Writes("COMMIT PREPARED")),
        TransStmtRollbackPrepared => Err(Stop::Writes("ROLLBACK PREPARED")),
        Undefined => Err(UNKNOWN),
    }
}

/// The modes of BEGIN and SET TRANSACTION. Of one that is said twice the last counts, as in PostgreSQL.
fn modes(options: &[Node]) -> Result<Modes, Stop> {
    let mut modes = Modes::default();
    for option in options {
        let Some(NodeEnum::DefElem(option)) = &option.node else { return Err(UNKNOWN) };
        set_mode(&mut modes, &option.defname, constant(option).ok_or(UNKNOWN)?)?;
    }
    Ok(modes)
}

fn constant(option: &DefElem) -> Option<Constant<'_>> {
    constant_in(option.arg.as_deref()?)
}

enum Constant<'a> {
    Text(&'a str),
    Number(i32),
}

fn constant_in(node: &Node) -> Option<Constant<'_>> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst { val: Some(value), .. }) => match value {
            a_const::Val::Sval(text) => Some(Constant::Text(&text.sval)),
            a_const::Val::Ival(number) => Some(Constant::Number(number.ival)),
            a_const::Val::Fval(_) | a_const::Val::Boolval(_) | a_const::Val::Bsval(_) => None,
        },
        _ => None,
    }
}

/// One of the settings that are modes of the transaction. Values that are not understood make the statement a write.
fn set_mode(modes: &mut Modes, name: &str, value: Constant<'_>) -> Result<(), Stop> {
    const UNCLEAR: Stop = Stop::Writes("a transaction mode that is not understood");
    match name {
        "transaction_read_only" => {
            modes.read_only = Some(match value {
                Constant::Number(number) => number != 0,
                Constant::Text(text) => boolean(text).ok_or(UNCLEAR)?,
            });
        }
        "transaction_isolation" => {
            let Constant::Text(level) = value else { return Err(UNCLEAR) };
            modes.serializable = Some(match level.to_ascii_lowercase().as_str() {
                "serializable" => true,
                "repeatable read" | "read committed" | "read uncommitted" => false,
                _ => return Err(UNCLEAR),
            });
        }
        // It only matters with SERIALIZABLE, which goes to the primary anyway.
        "transaction_deferrable" => {}
        _ => return Err(UNCLEAR),
    }
    Ok(())
}

/// What PostgreSQL's parse_bool takes, except for unusual abbreviations.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

fn set_act(walk: &mut Walk<'_>, set: &VariableSetStmt) -> Result<Act, Stop> {
    let name = set.name.to_ascii_lowercase();
    match set.kind() {
        VariableSetKind::VarSetMulti => match set.name.as_str() {
            "TRANSACTION" => Ok(Act::SetTransaction(modes(&set.args)?)),
            "SESSION CHARACTERISTICS" => Ok(Act::Session("SET SESSION CHARACTERISTICS")),
            "TRANSACTION SNAPSHOT" => Err(Stop::Writes("SET TRANSACTION SNAPSHOT")),
            _ => Err(UNKNOWN),
        },
        VariableSetKind::VarReset | VariableSetKind::VarResetAll => Ok(Act::Session("RESET")),
        // Both forms of SET, with LOCAL and without, last as long as the transaction.
        kind if MODES.contains(&name.as_str()) => {
            walk.depends_on_constants = true;
            let value = match (kind, set.args.as_slice()) {
                (VariableSetKind::VarSetValue, [value]) => constant_in(value),
                _ => None,
            };
            let value = value.ok_or(Stop::Writes("a transaction mode that is not understood"))?;
            let mut modes = Modes::default();
            set_mode(&mut modes, &name, value)?;
            Ok(Act::SetTransaction(modes))
        }
        VariableSetKind::VarSetValue | VariableSetKind::VarSetDefault | VariableSetKind::VarSetCurrent => {
            Ok(if set.is_local { Act::SetLocal } else { Act::Session("SET") })
        }
        VariableSetKind::Undefined => Err(UNKNOWN),
    }
}

fn prepared(prepare: &PrepareStmt) -> Result<Act, Stop> {
    inner(|walk| {
        walk.all(&prepare.argtypes)?;
        act_of_query(walk, prepare.query.as_deref())
    })
    .map(Act::Prepare)
}

fn declared(declare: &DeclareCursorStmt) -> Result<Act, Stop> {
    let query = inner(|walk| act_of_query(walk, declare.query.as_deref()))?;
    Ok(if declare.options & HOLD == 0 { Act::Declare(query) } else { Act::Session("DECLARE … WITH HOLD") })
}

fn inner<'a>(read: impl FnOnce(&mut Walk<'a>) -> Result<Act, Stop>) -> Result<Box<Outline>, Stop> {
    make(read).map(Box::new).map_err(|_| Stop::TooDeep)
}

/// A query that stands within another statement: a SELECT, or something that writes.
fn act_of_query<'a>(walk: &mut Walk<'a>, query: Option<&'a Node>) -> Result<Act, Stop> {
    match query.and_then(|node| node.node.as_ref()).ok_or(UNKNOWN)? {
        NodeEnum::SelectStmt(select) => {
            walk.select(select)?;
            Ok(Act::Read(title(select)))
        }
        other => {
            walk.kind(other)?;
            Err(UNKNOWN)
        }
    }
}

fn executed<'a>(walk: &mut Walk<'a>, execute: &'a ExecuteStmt) -> Result<Act, Stop> {
    walk.all(&execute.params)?;
    Ok(Act::Execute(execute.name.as_str().into()))
}
