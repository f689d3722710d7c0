//! Expressions: which functions, operators and types they name, and what is inside them.

use super::Mention;
use super::walk::{UNKNOWN, Walk, Walked};
use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, AExpr, AExprKind, AIndirection, CaseExpr, ColumnRef, FuncCall, Node, SortBy, SortByDir, SubLink,
    SubLinkType, TypeName, WindowDef, a_const,
};

/// A name as written, without the database that may stand before the schema: another than this one is an error anyway.
pub(super) struct Name<'a> {
    pub(super) schema: Option<&'a str>,
    pub(super) name: &'a str,
}

impl<'a> Name<'a> {
    /// `None` if it is not one to three strings.
    pub(super) fn of(parts: &'a [Node]) -> Option<Name<'a>> {
        match parts {
            [name] => Some(Name { schema: None, name: string(name)? }),
            [schema, name] => Some(Name { schema: Some(string(schema)?), name: string(name)? }),
            [database, schema, name] => {
                string(database)?;
                Some(Name { schema: Some(string(schema)?), name: string(name)? })
            }
            _ => None,
        }
    }

    fn schema(&self) -> Option<Box<str>> {
        self.schema.map(Box::from)
    }
}

/// The text of a name's part.
fn string(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(part) => Some(&part.sval),
        _ => None,
    }
}

fn string_constant(node: &Node) -> Option<Box<str>> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst { val: Some(a_const::Val::Sval(value)), .. }) => Some(value.sval.as_str().into()),
        _ => None,
    }
}

/// `f(x, …)` with an `f` that takes so many arguments at most; all that PostgreSQL allows is a hundred.
fn count(arguments: usize) -> u16 {
    u16::try_from(arguments).unwrap_or(u16::MAX)
}

impl<'a> Walk<'a> {
    /// An operator that the syntax implies, as `=` in `NULLIF` or `<` in `ORDER BY`. PostgreSQL looks for some of them along
    /// the `search_path` and takes others from the type's operator class, so its schema is left open.
    pub(super) fn builtin_operator(&mut self, symbol: &str) {
        self.mention(Mention::Operator { schema: None, symbol: symbol.into() });
    }

    pub(super) fn operator(&mut self, parts: &'a [Node]) -> Walked {
        let name = Name::of(parts).ok_or(UNKNOWN)?;
        self.mention(Mention::Operator { schema: name.schema(), symbol: name.name.into() });
        Ok(())
    }

    /// `a.b.c`: every part but the first may be a function in disguise.
    pub(super) fn column(&mut self, column: &'a ColumnRef) -> Walked {
        for (place, field) in column.fields.iter().enumerate() {
            match field.node.as_ref() {
                Some(NodeEnum::AStar(_)) => {}
                Some(NodeEnum::String(name)) if place > 0 => self.mention(Mention::Field(name.sval.as_str().into())),
                Some(NodeEnum::String(_)) => {}
                _ => return Err(UNKNOWN),
            }
        }
        Ok(())
    }

    /// `(x).b`, `(x).*`, `x[1]`, `x[1:2]`.
    pub(super) fn indirection(&mut self, indirection: &'a AIndirection) -> Walked {
        self.needed(&indirection.arg)?;
        for step in &indirection.indirection {
            match step.node.as_ref() {
                Some(NodeEnum::AStar(_)) => {}
                Some(NodeEnum::String(name)) => self.mention(Mention::Field(name.sval.as_str().into())),
                _ => self.node(step)?,
            }
        }
        Ok(())
    }

    pub(super) fn call(&mut self, call: &'a FuncCall) -> Walked {
        let name = Name::of(&call.funcname).ok_or(UNKNOWN)?;
        // The aggregated arguments of an ordered-set aggregate are those of its WITHIN GROUP.
        let ordered = if call.agg_within_group { call.agg_order.len() } else { 0 };
        let arguments = count(call.args.len() + ordered);
        if name.name == "current_setting" && matches!(arguments, 1 | 2) {
            self.depends_on_constants = true;
        }
        self.mention(Mention::Function {
            schema: name.schema(),
            name: name.name.into(),
            arguments,
            constant: call.args.first().and_then(string_constant),
        });
        if call.agg_distinct {
            self.builtin_operator("=");
        }
        self.all(&call.args)?;
        self.all(&call.agg_order)?;
        self.optional(&call.agg_filter)?;
        call.over.as_deref().map_or(Ok(()), |window| self.window(window))
    }

    pub(super) fn window(&mut self, window: &'a WindowDef) -> Walked {
        if !window.partition_clause.is_empty() {
            self.builtin_operator("=");
        }
        self.all(&window.partition_clause)?;
        self.all(&window.order_clause)?;
        self.optional(&window.start_offset)?;
        self.optional(&window.end_offset)
    }

    pub(super) fn sort(&mut self, sort: &'a SortBy) -> Walked {
        match sort.sortby_dir() {
            SortByDir::SortbyUsing => self.operator(&sort.use_op)?,
            SortByDir::SortbyDesc => self.builtin_operator(">"),
            SortByDir::SortbyDefault | SortByDir::SortbyAsc => self.builtin_operator("<"),
            SortByDir::Undefined => return Err(UNKNOWN),
        }
        self.needed(&sort.node)
    }

    /// Everything that the grammar makes of operators. `x IN (…)` and `LIKE` carry the symbol PostgreSQL uses for them,
    /// the right side of SIMILAR TO a call of `similar_to_escape`; BETWEEN carries its own name.
    pub(super) fn operation(&mut self, expression: &'a AExpr) -> Walked {
        match expression.kind() {
            AExprKind::AexprBetween | AExprKind::AexprBetweenSym => {
                self.builtin_operator(">=");
                self.builtin_operator("<=");
                // The right side is a list of the two bounds.
                return self.needed(&expression.lexpr).and_then(|()| self.list(expression.rexpr.as_deref()));
            }
            AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym => {
                self.builtin_operator("<");
                self.builtin_operator(">");
                return self.needed(&expression.lexpr).and_then(|()| self.list(expression.rexpr.as_deref()));
            }
            AExprKind::AexprIn => {
                self.operator(&expression.name)?;
                return self.needed(&expression.lexpr).and_then(|()| self.list(expression.rexpr.as_deref()));
            }
            AExprKind::AexprOp => {
                self.operator(&expression.name)?;
                // A prefix operator has nothing on its left.
                self.optional(&expression.lexpr)?;
            }
            AExprKind::AexprOpAny
            | AExprKind::AexprOpAll
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
            | AExprKind::AexprNullif
            | AExprKind::AexprLike
            | AExprKind::AexprIlike
            | AExprKind::AexprSimilar => {
                self.operator(&expression.name)?;
                self.needed(&expression.lexpr)?;
            }
            AExprKind::Undefined => return Err(UNKNOWN),
        }
        self.needed(&expression.rexpr)
    }

    /// A list where the grammar makes one.
    pub(super) fn list(&mut self, node: Option<&'a Node>) -> Walked {
        match node.and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::List(list)) => self.all(&list.items),
            _ => Err(UNKNOWN),
        }
    }

    pub(super) fn sublink(&mut self, link: &'a SubLink) -> Walked {
        match link.sub_link_type() {
            SubLinkType::ExistsSublink | SubLinkType::ExprSublink | SubLinkType::ArraySublink => {
                self.optional(&link.testexpr)?;
            }
            SubLinkType::AllSublink | SubLinkType::AnySublink => {
                match link.oper_name.as_slice() {
                    // `x IN (SELECT …)` says nothing.
                    [] => self.builtin_operator("="),
                    name => self.operator(name)?,
                }
                self.needed(&link.testexpr)?;
            }
            // The parser makes none of these; they come into being later.
            SubLinkType::RowcompareSublink | SubLinkType::MultiexprSublink | SubLinkType::CteSublink => {
                return Err(UNKNOWN);
            }
            SubLinkType::Undefined => return Err(UNKNOWN),
        }
        self.needed(&link.subselect)
    }

    pub(super) fn case(&mut self, case: &'a CaseExpr) -> Walked {
        if case.arg.is_some() {
            // `CASE x WHEN y` compares them.
            self.builtin_operator("=");
        }
        self.optional(&case.arg)?;
        for when in &case.args {
            let Some(NodeEnum::CaseWhen(when)) = &when.node else { return Err(UNKNOWN) };
            self.needed(&when.expr)?;
            self.needed(&when.result)?;
        }
        self.optional(&case.defresult)
    }

    /// `schema.name(modifiers)[]`, or `table.column%TYPE`, which is known when the table is.
    pub(super) fn type_name(&mut self, type_: &'a TypeName) -> Walked {
        if type_.pct_type {
            let (_, table) = type_.names.split_last().ok_or(UNKNOWN)?;
            let name = Name::of(table).ok_or(UNKNOWN)?;
            self.mention(Mention::Relation { schema: name.schema(), name: name.name.into() });
        } else {
            let name = Name::of(&type_.names).ok_or(UNKNOWN)?;
            self.mention(Mention::Type { schema: name.schema(), name: name.name.into() });
        }
        self.all(&type_.typmods)
    }
}
