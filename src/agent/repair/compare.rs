//! Whether two logs that are called the same are the same.
//!
//! Two promotions can take the same timeline number at the same place, and a standby that was started without its
//! `standby.signal` does not even take a new one: `pg_rewind` and replication both take such logs for equal. Records carry
//! times in microseconds and checksums, so logs that are not one differ soon after they part.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::control::Control;
use super::server::Source;
use super::timelines::{Stretch, segment_name};
use crate::agent::Site;
use crate::types::Lsn;

/// So much of the end of what both have is compared, and as much of its beginning.
const COMPARED: u64 = 16 << 20;
const CHUNK: u64 = 1 << 20;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sameness {
    Same,
    /// They differ from there on, or from before that.
    Other(Lsn),
    Unknown(String),
}

/// `shared`: on the same timeline and at the same positions on both.
pub async fn compare(site: &Site, control: &Control, source: &Source, shared: Stretch) -> Sameness {
    let size = control.segment_bytes;
    let floor = shared.to.0.saturating_sub(COMPARED).max(shared.from.0);
    let mut to = shared.to.0;
    let mut differs = None;
    let mut is_known = false;
    // From the end on, as of what is older each side keeps as much as it likes.
    while to > floor {
        let from = ((to - 1) / CHUNK * CHUNK).max(floor);
        match piece(site, source, shared, size, from, to).await {
            Ok(None) if differs.is_some() => break,
            Ok(None) => is_known = true,
            Ok(Some(at)) => differs = Some(at),
            Err(_) if differs.is_some() || is_known => break,
            Err(reason) => return Sameness::Unknown(reason),
        }
        to = from;
    }
    // Where the timeline begins, if that is still there on both: its first record has the time of its promotion in it.
    let begin = (shared.from.0 / CHUNK + 1) * CHUNK;
    if begin < floor
        && let Ok(Some(at)) = piece(site, source, shared, size, shared.from.0, begin).await
    {
        differs = Some(at);
    }
    differs.map_or(Sameness::Same, Sameness::Other)
}

/// Where they first differ.
async fn piece(
    site: &Site,
    source: &Source,
    shared: Stretch,
    size: u64,
    from: u64,
    to: u64,
) -> Result<Option<Lsn>, String> {
    let number = from / size;
    let own = segment_name(shared.timeline, number, size);
    let mut ours = vec![0; (to - from) as usize];
    File::open(site.data("pg_wal").join(&own))
        .and_then(|file| file.read_exact_at(&mut ours, from % size))
        .map_err(|error| format!("pg_wal/{own} cannot be read here: {error}"))?;
    // Its file may be that of a later timeline, which begins with a copy of the one before.
    for timeline in source.chain.iter().map(|theirs| theirs.timeline).filter(|theirs| *theirs >= shared.timeline) {
        let name = segment_name(timeline, number, size);
        match source.read(&name, from % size, to - from).await {
            Ok(Some(theirs)) if theirs.len() == ours.len() => {
                let differs = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
                return Ok(differs.map(|at| Lsn(from + at as u64)));
            }
            Ok(_) => {}
            Err(error) => return Err(error.reason),
        }
    }
    Err(format!("the primary has no pg_wal/{own} any more"))
}
