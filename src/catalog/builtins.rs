//! What PostgreSQL itself brings, and which of its functions may not simply run on a replica.
//!
//! The catalog says of each function whether it is VOLATILE, but not whether it means the same on a standby. That is
//! decided here, by name; what begins with `pg_` and has not been looked at counts as different.

use super::graph::{Object, Sort};
use super::rows::{CatalogError, as_number, boolean, oid, rows, text};
use super::why::Cause;
use crate::sql::Pins;
use crate::sql::body::pins_of_builtin;
use hashbrown::HashMap;
use tokio_postgres::{Client, SimpleQueryMessage};

const QUESTION: &str = include_str!("builtins.sql");

/// VOLATILE only because each call gives another result, and harmless anywhere.
const HARMLESS: &[&str] = &[
    "array_sample",
    "array_shuffle",
    "clock_timestamp",
    "gen_random_uuid",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
    // VOLATILE, and yet they only look at what is replicated.
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
];

/// Functions beginning with `pg_` that mean the same on every node: they look at replicated catalogs, or compute.
const SAME_EVERYWHERE: &[&str] = &[
    "pg_basetype",
    "pg_char_to_encoding",
    "pg_client_encoding",
    "pg_collation_for",
    "pg_column_compression",
    "pg_column_is_updatable",
    "pg_column_size",
    "pg_column_toast_chunk_id",
    "pg_describe_object",
    "pg_encoding_max_length",
    "pg_encoding_to_char",
    "pg_get_acl",
    "pg_get_catalog_foreign_keys",
    "pg_get_expr",
    "pg_get_function_arg_default",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_function_sqlbody",
    "pg_get_keywords",
    "pg_get_object_address",
    "pg_get_publication_tables",
    "pg_get_replica_identity_index",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef_columns",
    "pg_get_statisticsobjdef_expressions",
    "pg_get_userbyid",
    "pg_has_role",
    "pg_identify_object",
    "pg_identify_object_as_address",
    "pg_indexam_progress_phasename",
    "pg_input_error_info",
    "pg_input_is_valid",
    "pg_options_to_table",
    "pg_partition_root",
    "pg_relation_filenode",
    "pg_relation_is_publishable",
    "pg_relation_is_updatable",
    "pg_sequence_parameters",
    "pg_size_bytes",
    "pg_size_pretty",
    "pg_timezone_abbrevs",
    "pg_timezone_abbrevs_abbrevs",
    "pg_timezone_abbrevs_zone",
    "pg_timezone_names",
    "pg_trigger_depth",
    "pg_typeof",
    "pg_wal_lsn_diff",
];

/// The input, output and operators of types: `pg_lsn_in`, `pg_lsn_larger`.
const TYPES: &[&str] = &["pg_lsn", "pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin"];

/// The beginnings of names that do not begin with `pg_` and are not the same everywhere, and what they are about.
const PER_NODE: &[(&str, &str)] = &[
    ("inet_server_", "address of the server"),
    ("inet_client_", "address of the client"),
    ("txid_", "transaction ids"),
    ("currval", "state of a sequence"),
    ("lastval", "state of a sequence"),
    ("nextval", "state of a sequence"),
    ("setval", "state of a sequence"),
    ("lo_", "large objects"),
    ("loread", "large objects"),
    ("lowrite", "large objects"),
    ("set_config", "changes a setting"),
    ("setseed", "changes the session"),
    ("query_to_xml", "runs a text"),
    ("cursor_to_xml", "reads a cursor"),
    ("table_to_xml", "reads a table named by a value"),
    ("schema_to_xml", "reads a schema named by a value"),
    ("database_to_xml", "reads the whole database"),
    ("ts_stat", "runs a text"),
    ("binary_upgrade_", "for pg_upgrade only"),
];

/// The beginnings of names with `pg_` for which more can be said than that the server's own state is meant.
const PER_NODE_PG: &[(&str, &str)] = &[
    ("pg_advisory_", "advisory lock"),
    ("pg_try_advisory_", "advisory lock"),
    ("pg_is_in_recovery", "says whether this is a standby"),
    ("pg_current_xact_id", "transaction ids"),
    ("pg_current_snapshot", "transaction ids"),
    ("pg_snapshot_", "transaction ids"),
    ("pg_visible_in_snapshot", "transaction ids"),
    ("pg_export_snapshot", "transaction ids"),
    ("pg_xact_", "transaction ids"),
    ("pg_sequence_last_value", "state of a sequence"),
    ("pg_stat", "statistics of the server"),
    ("pg_read_", "files of the server"),
    ("pg_ls_", "files of the server"),
    ("pg_current_wal", "position in the WAL"),
    ("pg_last_wal", "position in the WAL"),
    ("pg_notify", "NOTIFY"),
    ("pg_relation_size", "size on disk"),
    ("pg_total_relation_size", "size on disk"),
    ("pg_table_size", "size on disk"),
    ("pg_indexes_size", "size on disk"),
    ("pg_database_size", "size on disk"),
    ("pg_tablespace_size", "size on disk"),
];

/// Why one of PostgreSQL's own functions is not for a replica, or not always.
pub(super) fn cause_of_builtin(name: &str, arguments: u16, is_volatile: bool) -> Option<Cause> {
    let begins = |list: &[(&str, &'static str)]| {
        list.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, what)| Cause::PerNode(what))
    };
    let is_same = |name: &str| {
        SAME_EVERYWHERE.contains(&name)
            || name.ends_with("_is_visible")
            || name.ends_with("_has_property")
            || name.starts_with("pg_get_") && name.ends_with("def")
            || TYPES
                .iter()
                .any(|type_| name.strip_prefix(type_).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
    };
    match name {
        _ if HARMLESS.contains(&name) => None,
        // With three arguments it only computes.
        "ts_rewrite" => (arguments == 2).then_some(Cause::PerNode("runs a text")),
        "has_largeobject_privilege" => None,
        _ if !name.starts_with("pg_") => begins(PER_NODE).or(is_volatile.then_some(Cause::Volatile)),
        _ if is_same(name) => is_volatile.then_some(Cause::Volatile),
        _ => begins(PER_NODE_PG).or(Some(Cause::PerNode("state of the server"))),
    }
}

/// Something PostgreSQL brings, as `Names` shows it.
pub(super) struct Builtin {
    pub object: Object,
    pub name: Box<str>,
    pub schema: Box<str>,
    pub arguments: (u16, u16),
    pub cause: Option<Cause>,
    pub pins: Pins,
    /// Of a relation; zero if there is none.
    pub row_type: u32,
}

/// All of it. It depends on the server's version only, so it is read once.
#[derive(Default)]
pub(super) struct Builtins {
    pub all: Vec<Builtin>,
    /// Which of the functions and relations a view of PostgreSQL's own uses.
    pub uses: Vec<(Object, Object)>,
    by_source: HashMap<Box<str>, Vec<usize>>,
}

impl Builtins {
    pub async fn read(client: &Client) -> Result<Builtins, CatalogError> {
        Builtins::of(&client.simple_query(QUESTION).await?)
    }

    fn of(answer: &[SimpleQueryMessage]) -> Result<Builtins, CatalogError> {
        let mut found = Builtins::default();
        for row in rows(answer) {
            let sort = match text(row, 0)? {
                "function" => Sort::Function,
                "relation" => Sort::Relation,
                "type" => Sort::Type,
                "operator" => Sort::Operator,
                "calls" => {
                    let used = (Sort::of(text(row, 2)?).ok_or(CatalogError::UNKNOWN_OBJECT)?, oid(row, 3)?);
                    found.uses.push(((Sort::Relation, oid(row, 1)?), used));
                    continue;
                }
                _ => return Err(CatalogError::Answer("an unknown kind of row")),
            };
            let (object, name, schema) = ((sort, oid(row, 1)?), text(row, 2)?, text(row, 3)?);
            let (mut arguments, mut cause, mut pins, mut row_type) = ((0, 0), None, Pins::EMPTY, 0);
            match sort {
                Sort::Function => {
                    arguments = argument_range(as_number(row, 5)?, as_number(row, 6)?, boolean(row, 7)?);
                    pins = pins_of_builtin(name);
                    // What takes or gives PostgreSQL's own structures cannot be called by SQL.
                    if !boolean(row, 8)? {
                        cause = cause_of_builtin(name, as_number(row, 5)?, text(row, 4)? == "v");
                    }
                    let source = text(row, 9)?;
                    if !source.is_empty() && (cause.is_some() || !pins.is_empty()) {
                        found.by_source.entry(source.into()).or_default().push(found.all.len());
                    }
                }
                Sort::Relation => {
                    pins = pins_of_builtin(name);
                    row_type = oid(row, 4)?;
                }
                _ => {}
            }
            let (name, schema) = (name.into(), schema.into());
            found.all.push(Builtin { object, name, schema, arguments, cause, pins, row_type });
        }
        Ok(found)
    }

    /// Those functions that are implemented by this, if there is something to say about them.
    pub fn of_source(&self, source: &str) -> impl Iterator<Item = &Builtin> {
        self.by_source.get(source).into_iter().flatten().map(|at| &self.all[*at])
    }
}

/// How many arguments a function can be called with.
pub(super) fn argument_range(all: u16, with_default: u16, is_variadic: bool) -> (u16, u16) {
    // With a variadic parameter of type "any" none need be given; with an array, `VARIADIC array` counts as one and
    // nothing at all is refused, which does no harm to allow.
    let needed = all.saturating_sub(with_default).saturating_sub(u16::from(is_variadic));
    (needed, if is_variadic { u16::MAX } else { all })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::names::Traits;

    fn traits(name: &str, is_volatile: bool) -> Traits {
        cause_of_builtin(name, 1, is_volatile).map_or(Traits::NONE, |cause| cause.traits())
    }

    #[test]
    fn what_is_new_or_unknown_goes_to_the_primary() {
        assert_eq!(traits("pg_invented_in_version_30", false), Traits::DIFFERS);
        assert_eq!(traits("pg_get_invented", false), Traits::DIFFERS);
        assert_eq!(traits("invented", true), Traits::MAY_WRITE);
        assert_eq!(traits("invented", false), Traits::NONE);
    }

    #[test]
    fn introspection_of_replicated_catalogs_is_the_same_everywhere() {
        for name in
            ["pg_get_viewdef", "pg_table_is_visible", "format_type", "has_table_privilege", "pg_lsn_in", "random"]
        {
            assert_eq!(traits(name, false), Traits::NONE, "{name}");
        }
        assert_eq!(traits("pg_lsn_invented", true), Traits::MAY_WRITE);
    }

    #[test]
    fn whatever_pins_a_session_is_never_for_a_replica() {
        let dblink = |name: &&str| !name.starts_with("dblink");
        let views = |name: &&str| !name.starts_with("pg_stat_xact") && !name.ends_with('s');
        for name in crate::sql::body::builtin_names().filter(dblink).filter(views) {
            let traits = cause_of_builtin(name, 2, false).map_or(Traits::NONE, |cause| cause.traits());
            assert!(traits.contains(Traits::DIFFERS), "{name}");
        }
    }

    #[test]
    fn arguments_may_be_left_out_or_repeated() {
        assert_eq!(argument_range(3, 0, false), (3, 3));
        assert_eq!(argument_range(3, 2, false), (1, 3));
        assert_eq!(argument_range(2, 0, true), (1, u16::MAX));
    }
}
