//! The SQL/JSON constructors, query functions and JSON_TABLE.

use super::walk::{UNKNOWN, Walk, Walked};
use pg_query::protobuf::{
    JsonAggConstructor, JsonBehavior, JsonFuncExpr, JsonKeyValue, JsonOutput, JsonTable, JsonTableColumn, JsonValueExpr,
};

impl<'a> Walk<'a> {
    pub(super) fn json_value(&mut self, value: &'a JsonValueExpr) -> Walked {
        self.needed(&value.raw_expr)
    }

    /// RETURNING and its type.
    pub(super) fn json_output(&mut self, output: &'a Option<JsonOutput>) -> Walked {
        let type_ = output.as_ref().and_then(|output| output.type_name.as_ref());
        type_.map_or(Ok(()), |type_| self.type_name(type_))
    }

    pub(super) fn json_pair(&mut self, pair: &'a JsonKeyValue) -> Walked {
        self.needed(&pair.key)?;
        self.json_value(pair.value.as_deref().ok_or(UNKNOWN)?)
    }

    /// What JSON_ARRAYAGG and JSON_OBJECTAGG have in common with every aggregate.
    pub(super) fn json_aggregate(&mut self, aggregate: &'a Option<Box<JsonAggConstructor>>) -> Walked {
        let aggregate = aggregate.as_deref().ok_or(UNKNOWN)?;
        self.json_output(&aggregate.output)?;
        self.optional(&aggregate.agg_filter)?;
        self.all(&aggregate.agg_order)?;
        aggregate.over.as_deref().map_or(Ok(()), |window| self.window(window))
    }

    /// JSON_EXISTS, JSON_QUERY, JSON_VALUE.
    pub(super) fn json_call(&mut self, call: &'a JsonFuncExpr) -> Walked {
        self.json_value(call.context_item.as_deref().ok_or(UNKNOWN)?)?;
        self.needed(&call.pathspec)?;
        self.all(&call.passing)?;
        self.json_output(&call.output)?;
        self.json_behavior(&call.on_empty)?;
        self.json_behavior(&call.on_error)
    }

    /// ON EMPTY, ON ERROR: `DEFAULT` has an expression.
    fn json_behavior(&mut self, behavior: &'a Option<Box<JsonBehavior>>) -> Walked {
        behavior.as_deref().map_or(Ok(()), |behavior| self.optional(&behavior.expr))
    }

    pub(super) fn json_table(&mut self, table: &'a JsonTable) -> Walked {
        self.json_value(table.context_item.as_deref().ok_or(UNKNOWN)?)?;
        self.needed(&table.pathspec.as_deref().ok_or(UNKNOWN)?.string)?;
        self.all(&table.passing)?;
        self.all(&table.columns)?;
        self.json_behavior(&table.on_error)
    }

    pub(super) fn json_column(&mut self, column: &'a JsonTableColumn) -> Walked {
        if let Some(type_) = &column.type_name {
            self.type_name(type_)?;
        }
        if let Some(path) = column.pathspec.as_deref() {
            self.needed(&path.string)?;
        }
        self.all(&column.columns)?;
        self.json_behavior(&column.on_empty)?;
        self.json_behavior(&column.on_error)
    }
}
