//! Any text, in every dialect: no panic, and the same answer twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgbaton::sql::{Dialect, Suspects, analysis};

fuzz_target!(|text: &[u8]| {
    for standard_conforming_strings in [true, false] {
        for unsafe_encoding in [true, false] {
            let dialect = Dialect { standard_conforming_strings, unsafe_encoding };
            let suspects = Suspects::default();
            let once = analysis::analyze(text, dialect, &suspects);
            assert_eq!(once, analysis::analyze(text, dialect, &suspects));
        }
    }
});
