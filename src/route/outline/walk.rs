//! The walk over a statement's tree, and the one place where every kind of node the grammar has is decided.
//!
//! The `match` in [`Walk::kind`] has no wildcard on purpose: when a newer grammar brings new nodes, pgbaton does not
//! compile until somebody has thought about whether they can write.

use super::mentions::Mentions;
use super::{MAX_DEPTH, Mention};
use pg_query::NodeEnum;
use pg_query::protobuf::Node;

/// Why a walk ended before the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// The statement writes, or has to be taken for one that does; the text says why.
    Writes(&'static str),
    TooDeep,
}

/// A node where the grammar does not put it, or none where it puts one: this version does not understand the statement.
pub(super) const UNKNOWN: Stop = Stop::Writes("a kind of statement this version does not know");

pub(super) type Walked = Result<(), Stop>;

/// What has been seen of one statement so far. After a [`Stop`] it is of no use any more.
#[derive(Default)]
pub(super) struct Walk<'a> {
    pub(super) mentions: Mentions,
    pub(super) depends_on_constants: bool,
    /// The names of common table expressions that can be seen from here; they hide tables.
    pub(super) ctes: Vec<&'a str>,
    depth: u32,
}

impl<'a> Walk<'a> {
    /// Where the grammar always has a node.
    pub(super) fn needed(&mut self, node: &'a Option<Box<Node>>) -> Walked {
        self.node(node.as_deref().ok_or(UNKNOWN)?)
    }

    /// Where it may have one.
    pub(super) fn optional(&mut self, node: &'a Option<Box<Node>>) -> Walked {
        node.as_deref().map_or(Ok(()), |node| self.node(node))
    }

    pub(super) fn all(&mut self, nodes: &'a [Node]) -> Walked {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    pub(super) fn node(&mut self, node: &'a Node) -> Walked {
        let node = node.node.as_ref().ok_or(UNKNOWN)?;
        self.deeper(|walk| walk.kind(node))
    }

    pub(super) fn deeper(&mut self, walk: impl FnOnce(&mut Self) -> Walked) -> Walked {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Stop::TooDeep);
        }
        walk(self)?;
        self.depth -= 1;
        Ok(())
    }

    pub(super) fn mention(&mut self, mention: Mention) {
        self.mentions.add(mention);
    }

    /// What this kind of node means where a query, a table or an expression may stand.
    pub(super) fn kind(&mut self, node: &'a NodeEnum) -> Walked {
        use NodeEnum::*;
        match node {
            // Queries and what stands in FROM
            SelectStmt(select) => self.select(select),
            RangeVar(relation) => self.relation(relation),
            RangeSubselect(range) => self.needed(&range.subquery),
            RangeFunction(range) => self.range_function(range),
            RangeTableFunc(range) => self.xml_table(range),
            RangeTableSample(sample) => self.table_sample(sample),
            JsonTable(table) => self.json_table(table),
            JoinExpr(join) => self.join(join),

            // Expressions
            AConst(_) | ParamRef(_) | SqlvalueFunction(_) | SetToDefault(_) | MergeSupportFunc(_) => Ok(()),
            ColumnRef(column) => self.column(column),
            FuncCall(call) => self.call(call),
            NamedArgExpr(argument) => self.needed(&argument.arg),
            AExpr(expression) => self.operation(expression),
            BoolExpr(boolean) => self.all(&boolean.args),
            SubLink(link) => self.sublink(link),
            CaseExpr(case) => self.case(case),
            CoalesceExpr(coalesce) => self.all(&coalesce.args),
            MinMaxExpr(extreme) => {
                self.builtin_operator("<");
                self.all(&extreme.args)
            }
            RowExpr(row) => self.all(&row.args),
            AArrayExpr(array) => self.all(&array.elements),
            AIndirection(indirection) => self.indirection(indirection),
            AIndices(indices) => {
                self.optional(&indices.lidx)?;
                self.optional(&indices.uidx)
            }
            TypeCast(cast) => {
                self.type_name(cast.type_name.as_ref().ok_or(UNKNOWN)?)?;
                self.needed(&cast.arg)
            }
            CollateClause(collate) => self.needed(&collate.arg),
            NullTest(test) => self.needed(&test.arg),
            BooleanTest(test) => self.needed(&test.arg),
            GroupingFunc(grouping) => self.all(&grouping.args),
            GroupingSet(set) => self.all(&set.content),
            SortBy(sort) => self.sort(sort),
            ResTarget(target) => self.target(target),
            TypeName(name) => self.type_name(name),
            XmlExpr(xml) => {
                self.all(&xml.named_args)?;
                self.all(&xml.args)
            }
            XmlSerialize(xml) => {
                self.type_name(xml.type_name.as_ref().ok_or(UNKNOWN)?)?;
                self.needed(&xml.expr)
            }

            // SQL/JSON
            JsonValueExpr(value) => self.json_value(value),
            JsonArgument(argument) => self.json_value(argument.val.as_deref().ok_or(UNKNOWN)?),
            JsonBehavior(behavior) => self.optional(&behavior.expr),
            JsonFuncExpr(call) => self.json_call(call),
            JsonTablePathSpec(path) => self.needed(&path.string),
            JsonTableColumn(column) => self.json_column(column),
            JsonKeyValue(pair) => self.json_pair(pair),
            JsonIsPredicate(is_json) => self.needed(&is_json.expr),
            JsonParseExpr(parse) => {
                self.json_output(&parse.output)?;
                self.json_value(parse.expr.as_deref().ok_or(UNKNOWN)?)
            }
            JsonScalarExpr(scalar) => {
                self.json_output(&scalar.output)?;
                self.needed(&scalar.expr)
            }
            JsonSerializeExpr(serialize) => {
                self.json_output(&serialize.output)?;
                self.json_value(serialize.expr.as_deref().ok_or(UNKNOWN)?)
            }
            JsonObjectConstructor(object) => {
                self.json_output(&object.output)?;
                self.all(&object.exprs)
            }
            JsonArrayConstructor(array) => {
                self.json_output(&array.output)?;
                self.all(&array.exprs)
            }
            JsonArrayQueryConstructor(array) => {
                self.json_output(&array.output)?;
                self.needed(&array.query)
            }
            JsonObjectAgg(aggregate) => {
                self.json_aggregate(&aggregate.constructor)?;
                self.json_pair(aggregate.arg.as_deref().ok_or(UNKNOWN)?)
            }
            JsonArrayAgg(aggregate) => {
                self.json_aggregate(&aggregate.constructor)?;
                self.json_value(aggregate.arg.as_deref().ok_or(UNKNOWN)?)
            }

            // What only a primary does
            InsertStmt(_) => Err(Stop::Writes("INSERT")),
            UpdateStmt(_) => Err(Stop::Writes("UPDATE")),
            DeleteStmt(_) => Err(Stop::Writes("DELETE")),
            MergeStmt(_) => Err(Stop::Writes("MERGE")),
            CurrentOfExpr(_) => Err(Stop::Writes("WHERE CURRENT OF")),
            IntoClause(_) | CreateTableAsStmt(_) => Err(Stop::Writes("CREATE TABLE AS")),
            CallStmt(_) => Err(Stop::Writes("CALL")),
            DoStmt(_) => Err(Stop::Writes("DO")),
            LockStmt(_) => Err(Stop::Writes("LOCK")),
            TruncateStmt(_) => Err(Stop::Writes("TRUNCATE")),
            VacuumStmt(vacuum) => Err(Stop::Writes(if vacuum.is_vacuumcmd { "VACUUM" } else { "ANALYZE" })),
            ClusterStmt(_) => Err(Stop::Writes("CLUSTER")),
            ReindexStmt(_) => Err(Stop::Writes("REINDEX")),
            CheckPointStmt(_) => Err(Stop::Writes("CHECKPOINT")),
            ConstraintsSetStmt(_) => Err(Stop::Writes("SET CONSTRAINTS")),
            RefreshMatViewStmt(_) => Err(Stop::Writes("REFRESH MATERIALIZED VIEW")),
            AlterSystemStmt(_) => Err(Stop::Writes("ALTER SYSTEM")),
            GrantStmt(grant) => Err(Stop::Writes(if grant.is_grant { "GRANT" } else { "REVOKE" })),
            GrantRoleStmt(grant) => Err(Stop::Writes(if grant.is_grant { "GRANT" } else { "REVOKE" })),
            CommentStmt(_) => Err(Stop::Writes("COMMENT")),
            SecLabelStmt(_) => Err(Stop::Writes("SECURITY LABEL")),
            DropStmt(_) => Err(Stop::Writes("DROP")),
            DropOwnedStmt(_) => Err(Stop::Writes("DROP OWNED")),
            ReassignOwnedStmt(_) => Err(Stop::Writes("REASSIGN OWNED")),
            RenameStmt(_) => Err(Stop::Writes("ALTER … RENAME")),
            AlterObjectDependsStmt(_) => Err(Stop::Writes("ALTER … DEPENDS ON")),
            AlterObjectSchemaStmt(_) => Err(Stop::Writes("ALTER … SET SCHEMA")),
            AlterOwnerStmt(_) => Err(Stop::Writes("ALTER … OWNER TO")),
            CreateSchemaStmt(_) => Err(Stop::Writes("CREATE SCHEMA")),
            CreateStmt(_) => Err(Stop::Writes("CREATE TABLE")),
            AlterTableStmt(_) | AlterTableMoveAllStmt(_) => Err(Stop::Writes("ALTER TABLE")),
            CreateTableSpaceStmt(_) => Err(Stop::Writes("CREATE TABLESPACE")),
            DropTableSpaceStmt(_) => Err(Stop::Writes("DROP TABLESPACE")),
            AlterTableSpaceOptionsStmt(_) => Err(Stop::Writes("ALTER TABLESPACE")),
            CreateExtensionStmt(_) => Err(Stop::Writes("CREATE EXTENSION")),
            AlterExtensionStmt(_) | AlterExtensionContentsStmt(_) => Err(Stop::Writes("ALTER EXTENSION")),
            CreateFdwStmt(_) => Err(Stop::Writes("CREATE FOREIGN DATA WRAPPER")),
            AlterFdwStmt(_) => Err(Stop::Writes("ALTER FOREIGN DATA WRAPPER")),
            CreateForeignServerStmt(_) => Err(Stop::Writes("CREATE SERVER")),
            AlterForeignServerStmt(_) => Err(Stop::Writes("ALTER SERVER")),
            CreateForeignTableStmt(_) => Err(Stop::Writes("CREATE FOREIGN TABLE")),
            ImportForeignSchemaStmt(_) => Err(Stop::Writes("IMPORT FOREIGN SCHEMA")),
            CreateUserMappingStmt(_) => Err(Stop::Writes("CREATE USER MAPPING")),
            AlterUserMappingStmt(_) => Err(Stop::Writes("ALTER USER MAPPING")),
            DropUserMappingStmt(_) => Err(Stop::Writes("DROP USER MAPPING")),
            CreatePolicyStmt(_) => Err(Stop::Writes("CREATE POLICY")),
            AlterPolicyStmt(_) => Err(Stop::Writes("ALTER POLICY")),
            CreateAmStmt(_) => Err(Stop::Writes("CREATE ACCESS METHOD")),
            CreateTrigStmt(_) => Err(Stop::Writes("CREATE TRIGGER")),
            CreateEventTrigStmt(_) => Err(Stop::Writes("CREATE EVENT TRIGGER")),
            AlterEventTrigStmt(_) => Err(Stop::Writes("ALTER EVENT TRIGGER")),
            CreatePlangStmt(_) => Err(Stop::Writes("CREATE LANGUAGE")),
            CreateRoleStmt(_) => Err(Stop::Writes("CREATE ROLE")),
            AlterRoleStmt(_) | AlterRoleSetStmt(_) => Err(Stop::Writes("ALTER ROLE")),
            DropRoleStmt(_) => Err(Stop::Writes("DROP ROLE")),
            CreateSeqStmt(_) => Err(Stop::Writes("CREATE SEQUENCE")),
            AlterSeqStmt(_) => Err(Stop::Writes("ALTER SEQUENCE")),
            DefineStmt(_) => Err(Stop::Writes("CREATE AGGREGATE, OPERATOR, TYPE …")),
            CreateDomainStmt(_) => Err(Stop::Writes("CREATE DOMAIN")),
            AlterDomainStmt(_) => Err(Stop::Writes("ALTER DOMAIN")),
            AlterCollationStmt(_) => Err(Stop::Writes("ALTER COLLATION")),
            AlterDefaultPrivilegesStmt(_) => Err(Stop::Writes("ALTER DEFAULT PRIVILEGES")),
            CreateOpClassStmt(_) => Err(Stop::Writes("CREATE OPERATOR CLASS")),
            CreateOpFamilyStmt(_) => Err(Stop::Writes("CREATE OPERATOR FAMILY")),
            AlterOpFamilyStmt(_) => Err(Stop::Writes("ALTER OPERATOR FAMILY")),
            IndexStmt(_) => Err(Stop::Writes("CREATE INDEX")),
            CreateStatsStmt(_) => Err(Stop::Writes("CREATE STATISTICS")),
            AlterStatsStmt(_) => Err(Stop::Writes("ALTER STATISTICS")),
            CreateFunctionStmt(_) => Err(Stop::Writes("CREATE FUNCTION")),
            AlterFunctionStmt(_) => Err(Stop::Writes("ALTER FUNCTION")),
            AlterOperatorStmt(_) => Err(Stop::Writes("ALTER OPERATOR")),
            CompositeTypeStmt(_) | CreateEnumStmt(_) | CreateRangeStmt(_) => Err(Stop::Writes("CREATE TYPE")),
            AlterTypeStmt(_) | AlterEnumStmt(_) => Err(Stop::Writes("ALTER TYPE")),
            RuleStmt(_) => Err(Stop::Writes("CREATE RULE")),
            ViewStmt(_) => Err(Stop::Writes("CREATE VIEW")),
            CreatedbStmt(_) => Err(Stop::Writes("CREATE DATABASE")),
            AlterDatabaseStmt(_) | AlterDatabaseRefreshCollStmt(_) | AlterDatabaseSetStmt(_) => {
                Err(Stop::Writes("ALTER DATABASE"))
            }
            DropdbStmt(_) => Err(Stop::Writes("DROP DATABASE")),
            CreateConversionStmt(_) => Err(Stop::Writes("CREATE CONVERSION")),
            CreateCastStmt(_) => Err(Stop::Writes("CREATE CAST")),
            CreateTransformStmt(_) => Err(Stop::Writes("CREATE TRANSFORM")),
            AlterTsdictionaryStmt(_) => Err(Stop::Writes("ALTER TEXT SEARCH DICTIONARY")),
            AlterTsconfigurationStmt(_) => Err(Stop::Writes("ALTER TEXT SEARCH CONFIGURATION")),
            CreatePublicationStmt(_) => Err(Stop::Writes("CREATE PUBLICATION")),
            AlterPublicationStmt(_) => Err(Stop::Writes("ALTER PUBLICATION")),
            CreateSubscriptionStmt(_) => Err(Stop::Writes("CREATE SUBSCRIPTION")),
            AlterSubscriptionStmt(_) => Err(Stop::Writes("ALTER SUBSCRIPTION")),
            DropSubscriptionStmt(_) => Err(Stop::Writes("DROP SUBSCRIPTION")),

            // Statements that `statement` understands, which stand at the top only
            CopyStmt(_) | VariableSetStmt(_) | VariableShowStmt(_) | DeclareCursorStmt(_) | ClosePortalStmt(_)
            | FetchStmt(_) | NotifyStmt(_) | ListenStmt(_) | UnlistenStmt(_) | TransactionStmt(_) | LoadStmt(_)
            | ExplainStmt(_) | DiscardStmt(_) | PrepareStmt(_) | ExecuteStmt(_) | DeallocateStmt(_) => Err(UNKNOWN),

            // Parts that whoever holds them reads, and that stand nowhere else
            Alias(_)
            | AStar(_)
            | CaseWhen(_)
            | ColumnDef(_)
            | CommonTableExpr(_)
            | DefElem(_)
            | JsonAggConstructor(_)
            | JsonFormat(_)
            | JsonOutput(_)
            | JsonReturning(_)
            | List(_)
            | LockingClause(_)
            | RangeTableFuncCol(_)
            | RawStmt(_)
            | String(_)
            | WindowDef(_)
            | WithClause(_)
            | CtecycleClause(_)
            | CtesearchClause(_)
            | Integer(_)
            | Float(_)
            | Boolean(_)
            | BitString(_)
            | IntList(_)
            | OidList(_) => Err(UNKNOWN),

            // Parts of statements that write
            MultiAssignRef(_)
            | TableLikeClause(_)
            | IndexElem(_)
            | PartitionElem(_)
            | PartitionSpec(_)
            | PartitionBoundSpec(_)
            | PartitionRangeDatum(_)
            | PartitionCmd(_)
            | InferClause(_)
            | OnConflictClause(_)
            | MergeWhenClause(_)
            | ReturningOption(_)
            | ReturningClause(_)
            | TriggerTransition(_)
            | RoleSpec(_)
            | AlterTableCmd(_)
            | AtalterConstraint(_)
            | ReplicaIdentityStmt(_)
            | ObjectWithArgs(_)
            | AccessPriv(_)
            | Constraint(_)
            | CreateOpClassItem(_)
            | StatsElem(_)
            | FunctionParameter(_)
            | InlineCodeBlock(_)
            | CallContext(_)
            | VacuumRelation(_)
            | PublicationTable(_)
            | PublicationObjSpec(_)
            | ReturnStmt(_)
            | PlassignStmt(_) => Err(UNKNOWN),

            // What only exists after parse analysis or planning
            TableFunc(_)
            | Var(_)
            | Param(_)
            | Aggref(_)
            | WindowFunc(_)
            | WindowFuncRunCondition(_)
            | SubscriptingRef(_)
            | FuncExpr(_)
            | OpExpr(_)
            | DistinctExpr(_)
            | NullIfExpr(_)
            | ScalarArrayOpExpr(_)
            | SubPlan(_)
            | AlternativeSubPlan(_)
            | FieldSelect(_)
            | FieldStore(_)
            | RelabelType(_)
            | CoerceViaIo(_)
            | ArrayCoerceExpr(_)
            | ConvertRowtypeExpr(_)
            | CollateExpr(_)
            | CaseTestExpr(_)
            | ArrayExpr(_)
            | RowCompareExpr(_)
            | JsonConstructorExpr(_)
            | JsonExpr(_)
            | JsonTablePath(_)
            | JsonTablePathScan(_)
            | JsonTableSiblingJoin(_)
            | MergeAction(_)
            | CoerceToDomain(_)
            | CoerceToDomainValue(_)
            | NextValueExpr(_)
            | InferenceElem(_)
            | ReturningExpr(_)
            | TargetEntry(_)
            | RangeTblRef(_)
            | FromExpr(_)
            | OnConflictExpr(_)
            | Query(_)
            | RangeTblEntry(_)
            | RtepermissionInfo(_)
            | RangeTblFunction(_)
            | TableSampleClause(_)
            | WithCheckOption(_)
            | SortGroupClause(_)
            | WindowClause(_)
            | RowMarkClause(_)
            | SetOperationStmt(_) => Err(UNKNOWN),
        }
    }
}
