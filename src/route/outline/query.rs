//! SELECT and what stands in its FROM.

use super::Mention;
use super::expression::Name;
use super::walk::{Stop, UNKNOWN, Walk, Walked};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    CommonTableExpr, JoinExpr, LockClauseStrength, LockingClause, Node, RangeFunction, RangeTableFunc,
    RangeTableSample, RangeVar, ResTarget, SelectStmt, SetOperation, WithClause,
};

impl<'a> Walk<'a> {
    pub(super) fn select(&mut self, select: &'a SelectStmt) -> Walked {
        self.deeper(|walk| {
            let outer = walk.ctes.len();
            if let Some(with) = &select.with_clause {
                walk.with(with)?;
            }
            walk.body(select)?;
            walk.ctes.truncate(outer);
            Ok(())
        })
    }

    fn body(&mut self, select: &'a SelectStmt) -> Walked {
        if select.into_clause.is_some() {
            return Err(Stop::Writes("SELECT INTO"));
        }
        if let Some(locking) = select.locking_clause.first() {
            return Err(locking_stop(locking));
        }
        match select.op() {
            SetOperation::SetopNone => {}
            SetOperation::SetopUnion | SetOperation::SetopIntersect | SetOperation::SetopExcept => {
                self.builtin_operator("=");
                self.select(select.larg.as_deref().ok_or(UNKNOWN)?)?;
                self.select(select.rarg.as_deref().ok_or(UNKNOWN)?)?;
            }
            SetOperation::Undefined => return Err(UNKNOWN),
        }
        if !select.group_clause.is_empty() || !select.distinct_clause.is_empty() {
            self.builtin_operator("=");
        }
        // Plain DISTINCT is a list of one nothing.
        if !matches!(select.distinct_clause.as_slice(), [Node { node: None }]) {
            self.all(&select.distinct_clause)?;
        }
        self.all(&select.target_list)?;
        self.all(&select.from_clause)?;
        self.optional(&select.where_clause)?;
        self.all(&select.group_clause)?;
        self.optional(&select.having_clause)?;
        for window in &select.window_clause {
            let Some(NodeEnum::WindowDef(window)) = &window.node else { return Err(UNKNOWN) };
            self.window(window)?;
        }
        select.values_lists.iter().try_for_each(|row| self.list(Some(row)))?;
        self.all(&select.sort_clause)?;
        self.optional(&select.limit_offset)?;
        self.optional(&select.limit_count)
    }

    /// Adds the names of a WITH; whoever asked takes them away again. Without RECURSIVE a query sees those before it, with
    /// RECURSIVE all of them and itself.
    fn with(&mut self, with: &'a WithClause) -> Walked {
        let queries = || {
            with.ctes.iter().map(|node| match &node.node {
                Some(NodeEnum::CommonTableExpr(query)) => Ok(query.as_ref()),
                _ => Err(UNKNOWN),
            })
        };
        if with.recursive {
            for query in queries() {
                self.ctes.push(&query?.ctename);
            }
        }
        for query in queries() {
            let query = query?;
            self.common_table(query)?;
            if !with.recursive {
                self.ctes.push(&query.ctename);
            }
        }
        Ok(())
    }

    fn common_table(&mut self, query: &'a CommonTableExpr) -> Walked {
        // SEARCH only names columns; CYCLE compares rows with those before, and has two values of its own.
        if let Some(cycle) = &query.cycle_clause {
            self.builtin_operator("=");
            self.builtin_operator("<>");
            self.optional(&cycle.cycle_mark_value)?;
            self.optional(&cycle.cycle_mark_default)?;
        }
        let inner = query.ctequery.as_deref().ok_or(UNKNOWN)?;
        Err(Stop::Writes(match &inner.node {
            Some(NodeEnum::InsertStmt(_)) => "WITH … INSERT",
            Some(NodeEnum::UpdateStmt(_)) => "WITH … UPDATE",
            Some(NodeEnum::DeleteStmt(_)) => "WITH … DELETE",
            Some(NodeEnum::MergeStmt(_)) => "WITH … MERGE",
            _ => return self.node(inner),
        }))
    }

    pub(super) fn relation(&mut self, relation: &'a RangeVar) -> Walked {
        let is_qualified = !relation.schemaname.is_empty();
        if relation.relname.is_empty() {
            return Err(UNKNOWN);
        }
        if is_qualified || !self.ctes.contains(&relation.relname.as_str()) {
            let schema = is_qualified.then(|| relation.schemaname.as_str().into());
            self.mention(Mention::Relation { schema, name: relation.relname.as_str().into() });
        }
        Ok(())
    }

    pub(super) fn target(&mut self, target: &'a ResTarget) -> Walked {
        // Only an assignment has steps after the name.
        if !target.indirection.is_empty() {
            return Err(UNKNOWN);
        }
        self.needed(&target.val)
    }

    pub(super) fn join(&mut self, join: &'a JoinExpr) -> Walked {
        if join.is_natural || !join.using_clause.is_empty() {
            self.builtin_operator("=");
        }
        self.needed(&join.larg)?;
        self.needed(&join.rarg)?;
        self.optional(&join.quals)
    }

    /// `f(…)` or `ROWS FROM (f(…) AS (…), …)`: pairs of a call and the columns it is said to have.
    pub(super) fn range_function(&mut self, range: &'a RangeFunction) -> Walked {
        for pair in &range.functions {
            let Some(NodeEnum::List(pair)) = &pair.node else { return Err(UNKNOWN) };
            let (call, columns) = match pair.items.as_slice() {
                [call] => (call, None),
                [call, columns] => (call, Some(columns)),
                _ => return Err(UNKNOWN),
            };
            self.node(call)?;
            match columns.and_then(|columns| columns.node.as_ref()) {
                None => {}
                Some(NodeEnum::List(columns)) => self.column_definitions(&columns.items)?,
                Some(_) => return Err(UNKNOWN),
            }
        }
        self.column_definitions(&range.coldeflist)
    }

    /// The names, types and collations that stand in for what a function returning `record` does not say.
    fn column_definitions(&mut self, columns: &'a [Node]) -> Walked {
        for column in columns {
            let Some(NodeEnum::ColumnDef(column)) = &column.node else { return Err(UNKNOWN) };
            if column.raw_default.is_some() || !column.constraints.is_empty() || !column.fdwoptions.is_empty() {
                return Err(UNKNOWN);
            }
            self.type_name(column.type_name.as_ref().ok_or(UNKNOWN)?)?;
        }
        Ok(())
    }

    pub(super) fn xml_table(&mut self, table: &'a RangeTableFunc) -> Walked {
        self.needed(&table.docexpr)?;
        self.needed(&table.rowexpr)?;
        self.all(&table.namespaces)?;
        for column in &table.columns {
            let Some(NodeEnum::RangeTableFuncCol(column)) = &column.node else { return Err(UNKNOWN) };
            if let Some(type_) = &column.type_name {
                self.type_name(type_)?;
            }
            self.optional(&column.colexpr)?;
            self.optional(&column.coldefexpr)?;
        }
        Ok(())
    }

    pub(super) fn table_sample(&mut self, sample: &'a RangeTableSample) -> Walked {
        let method = Name::of(&sample.method).ok_or(UNKNOWN)?;
        // PostgreSQL's own two are functions marked VOLATILE, though all they do is choose rows.
        let is_own =
            matches!(method.schema, None | Some("pg_catalog")) && matches!(method.name, "bernoulli" | "system");
        if !is_own {
            let schema = method.schema.map(Box::from);
            self.mention(Mention::Function { schema, name: method.name.into(), arguments: 1, constant: None });
        }
        self.needed(&sample.relation)?;
        self.all(&sample.args)?;
        self.optional(&sample.repeatable)
    }
}

fn locking_stop(node: &Node) -> Stop {
    let Some(NodeEnum::LockingClause(LockingClause { strength, .. })) = &node.node else { return UNKNOWN };
    match LockClauseStrength::try_from(*strength) {
        Ok(LockClauseStrength::LcsForkeyshare) => Stop::Writes("FOR KEY SHARE"),
        Ok(LockClauseStrength::LcsForshare) => Stop::Writes("FOR SHARE"),
        Ok(LockClauseStrength::LcsFornokeyupdate) => Stop::Writes("FOR NO KEY UPDATE"),
        Ok(LockClauseStrength::LcsForupdate) => Stop::Writes("FOR UPDATE"),
        Ok(LockClauseStrength::Undefined | LockClauseStrength::LcsNone) | Err(_) => UNKNOWN,
    }
}
