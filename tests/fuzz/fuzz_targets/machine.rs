//! A session machine between a client and a server that say anything: no panic, whatever the turns.
//!
//! The input is a row of turns: a byte for the side (its lowest bit) and the length, then as many bytes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pgbaton::pool::memory::{Memory, Parameters};
use pgbaton::session::machine::{Machine, Nothing};
use pgbaton::session::sink::Sink;

fuzz_target!(|input: &[u8]| {
    let nothing = Nothing::default();
    let mut machine = Machine::new(1, 4711, Arc::new(Parameters::default()), false);
    let mut memory = Memory::default();
    let (mut client, mut server) = (Vec::new(), Vec::new());
    let mut rest = input;
    while let Some((turn, after)) = rest.split_first() {
        let (bytes, after) = after.split_at(usize::from(turn >> 1).min(after.len()));
        rest = after;
        let (mut there, mut back) = (Vec::new(), Vec::new());
        if turn & 1 == 0 {
            client.extend_from_slice(bytes);
            let context = nothing.context();
            let mut sink = Sink::new(&client, &mut there);
            match machine.client(&client, Some(&mut memory), &mut sink, &mut back, &context) {
                Ok((taken, _)) => drop(client.drain(..taken)),
                Err(_) => return,
            }
        } else {
            server.extend_from_slice(bytes);
            let mut sink = Sink::new(&server, &mut there);
            match machine.server(&server, &mut memory, &mut sink, 1 << 20) {
                Ok((taken, _)) => drop(server.drain(..taken)),
                Err(_) => return,
            }
        }
    }
});
