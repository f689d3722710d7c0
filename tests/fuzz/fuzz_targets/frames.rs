//! Any bytes, split into messages and read field by field: no panic, and no message reaches beyond its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgbaton::wire::{fields, frame};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(head)) = frame::client_header(rest) {
        assert!(head.total >= frame::HEADER);
        if head.total > rest.len() {
            break;
        }
        let body = &rest[frame::HEADER..head.total];
        if let Some((_, _, at)) = fields::bind_names(body) {
            let _ = fields::bind_parameters(&body[at..]);
        }
        let _ = fields::error_field(body, b'M');
        let _ = fields::parameter_status(body);
        let _ = fields::command_tag(body);
        rest = &rest[head.total..];
    }
});
