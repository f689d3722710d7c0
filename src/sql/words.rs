//! The words that decide something, and how to find one among all others in a few nanoseconds: a table filled at compile
//! time, looked up by length and three letters. Every identifier of every text that is not cached passes here.

use super::Pin;

/// What it means that a statement mentions a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mention {
    Nothing,
    /// A function that leaves something behind (or depends on what was left) when it is called.
    Call(Pin),
    /// A function that may end what holds the session.
    CallMayUnpin,
    /// A view or function that shows what belongs to one server process.
    Name(Pin),
    SetConfig,
    PgSettings,
}

macro_rules! words {
    ($($word:ident $text:literal $($mention:expr)?;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Word {
            /// Any other word.
            Other,
            $($word,)*
        }

        const WORDS: &[Word] = &[Word::Other, $(Word::$word,)*];
        const TEXTS: &[&str] = &["", $($text,)*];
        const MENTIONS: &[Mention] = &[Mention::Nothing, $(words!(@mention $($mention)?),)*];
    };
    (@mention) => { Mention::Nothing };
    (@mention $mention:expr) => { $mention };
}

use Mention::{Call, CallMayUnpin, Name, PgSettings as Settings, SetConfig as Config};

words! {
    Abort "abort";
    All "all";
    Alter "alter";
    Analyse "analyse";
    Analyze "analyze";
    As "as";
    Atomic "atomic";
    Authorization "authorization";
    Begin "begin";
    Call_ "call";
    Case "case";
    Characteristics "characteristics";
    Close "close";
    Collation "collation";
    Comment "comment";
    Commit "commit";
    Constraints "constraints";
    Create "create";
    Cursor "cursor";
    Data "data";
    Database "database";
    Deallocate "deallocate";
    Declare "declare";
    Default "default";
    Discard "discard";
    Do "do";
    Drop "drop";
    Else "else";
    End "end";
    Execute "execute";
    Exists "exists";
    Explain "explain";
    False "false";
    Foreign "foreign";
    From "from";
    Function "function";
    Global "global";
    Grant "grant";
    Group "group";
    Hold "hold";
    If "if";
    Import "import";
    In "in";
    Index "index";
    Insert "insert";
    Into "into";
    Isolation "isolation";
    Large "large";
    Listen "listen";
    Load "load";
    Local "local";
    Loop "loop";
    Mapping "mapping";
    Merge "merge";
    Names "names";
    Null "null";
    On "on";
    Option "option";
    Or "or";
    Plans "plans";
    Prepare "prepare";
    Prepared "prepared";
    Procedure "procedure";
    Publication "publication";
    Reassign "reassign";
    Refresh "refresh";
    Reindex "reindex";
    Release "release";
    Rename "rename";
    Replace "replace";
    Reset "reset";
    Revoke "revoke";
    Role "role";
    Rollback "rollback";
    Savepoint "savepoint";
    Schema "schema";
    Security "security";
    Select "select";
    Sequence "sequence";
    Sequences "sequences";
    Server "server";
    Session "session";
    Set "set";
    Start "start";
    Statistics "statistics";
    Subscription "subscription";
    System "system";
    Table "table";
    Tablespace "tablespace";
    Temp "temp";
    Temporary "temporary";
    Template "template";
    Text "text";
    Then "then";
    Time "time";
    To "to";
    Transaction "transaction";
    True "true";
    Unique "unique";
    Unlisten "unlisten";
    Update "update";
    User "user";
    Values "values";
    Verbose "verbose";
    With "with";
    Work "work";
    Xml "xml";
    Zone "zone";

    SetConfig "set_config" Config;
    PgSettings "pg_settings" Settings;

    PgAdvisoryLock "pg_advisory_lock" Call(Pin::AdvisoryLock);
    PgAdvisoryLockShared "pg_advisory_lock_shared" Call(Pin::AdvisoryLock);
    PgTryAdvisoryLock "pg_try_advisory_lock" Call(Pin::AdvisoryLock);
    PgTryAdvisoryLockShared "pg_try_advisory_lock_shared" Call(Pin::AdvisoryLock);
    PgAdvisoryUnlock "pg_advisory_unlock" CallMayUnpin;
    PgAdvisoryUnlockShared "pg_advisory_unlock_shared" CallMayUnpin;
    PgAdvisoryUnlockAll "pg_advisory_unlock_all" CallMayUnpin;

    Currval "currval" Call(Pin::Sequence);
    Lastval "lastval" Call(Pin::Sequence);

    // State no DISCARD undoes.
    Setseed "setseed" Call(Pin::Process);
    OriginSetup "pg_replication_origin_session_setup" Call(Pin::Process);
    OriginReset "pg_replication_origin_session_reset" Call(Pin::Process);
    BackupStart "pg_backup_start" Call(Pin::Process);
    BackupStop "pg_backup_stop" Call(Pin::Process);
    StartBackup "pg_start_backup" Call(Pin::Process);
    StopBackup "pg_stop_backup" Call(Pin::Process);
    // Slots can be temporary: then they live as long as their session.
    LogicalSlot "pg_create_logical_replication_slot" Call(Pin::Process);
    PhysicalSlot "pg_create_physical_replication_slot" Call(Pin::Process);
    CopyLogicalSlot "pg_copy_logical_replication_slot" Call(Pin::Process);
    CopyPhysicalSlot "pg_copy_physical_replication_slot" Call(Pin::Process);
    // The rest of dblink uses a connection opened by these, or one that ends with the call.
    DblinkConnect "dblink_connect" Call(Pin::Process);
    DblinkConnectU "dblink_connect_u" Call(Pin::Process);

    // They run SQL that stands in a value, where it cannot be read.
    QueryToXml "query_to_xml" Call(Pin::Opaque);
    QueryToXmlschema "query_to_xmlschema" Call(Pin::Opaque);
    QueryToXmlBoth "query_to_xml_and_xmlschema" Call(Pin::Opaque);
    TableToXml "table_to_xml" Call(Pin::Opaque);
    TableToXmlBoth "table_to_xml_and_xmlschema" Call(Pin::Opaque);
    SchemaToXml "schema_to_xml" Call(Pin::Opaque);
    SchemaToXmlBoth "schema_to_xml_and_xmlschema" Call(Pin::Opaque);
    DatabaseToXml "database_to_xml" Call(Pin::Opaque);
    DatabaseToXmlBoth "database_to_xml_and_xmlschema" Call(Pin::Opaque);
    TsStat "ts_stat" Call(Pin::Opaque);
    TsRewrite "ts_rewrite" Call(Pin::Opaque);

    PgBackendPid "pg_backend_pid" Call(Pin::Introspection);
    PgMyTempSchema "pg_my_temp_schema" Call(Pin::Introspection);
    PgIsOtherTempSchema "pg_is_other_temp_schema" Call(Pin::Introspection);
    PgListeningChannels "pg_listening_channels" Call(Pin::Introspection);
    PgCursor "pg_cursor" Call(Pin::Introspection);
    PgPreparedStatement "pg_prepared_statement" Call(Pin::Introspection);
    PgGetBackendMemoryContexts "pg_get_backend_memory_contexts" Call(Pin::Introspection);
    OriginIsSetup "pg_replication_origin_session_is_setup" Call(Pin::Introspection);
    OriginProgress "pg_replication_origin_session_progress" Call(Pin::Introspection);
    // Counters a server process has not yet handed over belong to that process.
    PgStatForceNextFlush "pg_stat_force_next_flush" Call(Pin::Introspection);
    PgStatXactAllTables "pg_stat_xact_all_tables" Name(Pin::Introspection);
    PgStatXactSysTables "pg_stat_xact_sys_tables" Name(Pin::Introspection);
    PgStatXactUserTables "pg_stat_xact_user_tables" Name(Pin::Introspection);
    PgStatXactUserFunctions "pg_stat_xact_user_functions" Name(Pin::Introspection);
    PgPreparedStatements "pg_prepared_statements" Name(Pin::Introspection);
    PgCursors "pg_cursors" Name(Pin::Introspection);
    PgBackendMemoryContexts "pg_backend_memory_contexts" Name(Pin::Introspection);
}

const SLOTS: usize = 1024;

const fn slot_of(word: &[u8]) -> usize {
    let len = word.len();
    let (first, middle, last) = (word[0] | 0x20, word[len / 2] | 0x20, word[len - 1] | 0x20);
    let mix = (first as usize).wrapping_mul(0x9e5).wrapping_add((middle as usize).wrapping_mul(0x3d3));
    mix.wrapping_add((last as usize).wrapping_mul(0x71)).wrapping_add(len.wrapping_mul(0x1f1)) % SLOTS
}

/// Open addressing with steps of one; an index into `TEXTS`, 0 where free.
const TABLE: [u8; SLOTS] = {
    assert!(TEXTS.len() <= 255);
    let mut table = [0u8; SLOTS];
    let mut i = 1;
    while i < TEXTS.len() {
        let mut slot = slot_of(TEXTS[i].as_bytes());
        while table[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = i as u8;
        i += 1;
    }
    table
};

impl Word {
    /// The word an identifier without quotes is, in any case of letters.
    #[inline]
    pub fn of(word: &[u8]) -> Word {
        if word.len() < 2 {
            return Word::Other;
        }
        let mut slot = slot_of(word);
        loop {
            match TABLE[slot] as usize {
                0 => return Word::Other,
                i if TEXTS[i].as_bytes().eq_ignore_ascii_case(word) => return WORDS[i],
                _ => slot = (slot + 1) % SLOTS,
            }
        }
    }

    #[inline]
    pub fn mention(self) -> Mention {
        MENTIONS[self as usize]
    }

    /// What a function or relation of `pg_catalog` of that name means. Used for names in double quotes and names found
    /// in the catalog, which are never key words.
    pub fn mention_of_name(name: &[u8]) -> Mention {
        let word = Word::of(name);
        if TEXTS[word as usize].as_bytes() == name { word.mention() } else { Mention::Nothing }
    }

    /// Every name that means something when mentioned, for looking them up in a catalog.
    pub fn mentioned_names() -> impl Iterator<Item = (&'static str, Mention)> {
        TEXTS.iter().copied().zip(MENTIONS.iter().copied()).filter(|(_, mention)| *mention != Mention::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_case_and_no_other() {
        for (i, text) in TEXTS.iter().enumerate().skip(1) {
            assert_eq!(Word::of(text.as_bytes()), WORDS[i]);
            assert_eq!(Word::of(text.to_uppercase().as_bytes()), WORDS[i]);
            assert_eq!(Word::of(format!("{text}x").as_bytes()), Word::Other);
        }
        assert_eq!(Word::of(b""), Word::Other);
        assert_eq!(Word::mention_of_name(b"set_config"), Mention::SetConfig);
        assert_eq!(Word::mention_of_name(b"SET_CONFIG"), Mention::Nothing);
    }
}
