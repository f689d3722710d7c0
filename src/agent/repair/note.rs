//! What a repair remembers on disk: it may be cut off at any moment, and is then called again.
//!
//! The note lies in `kept_dir`, as `pg_rewind` removes from the data directory whatever the primary does not have.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::agent::{Failed, Site};
use crate::cluster::agent::{Code, Diverged, Repair};
use crate::types::{Lsn, Timeline};

const FILE: &str = ".repair.json";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// What diverged is put aside, and the data is still as it was.
    Begun,
    /// `pg_rewind` is at it, or the data was removed in part: nothing but a copy helps if that does not end well.
    Unusable,
    /// The old data moves out of the data directory, entry by entry.
    MovingOut,
    /// The new data moves in.
    MovingIn,
    /// The data is the primary's, and has not been started yet.
    Made,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    pub stage: Stage,
    pub repair: Repair,
    pub why: String,
    /// Of the primary that the data was made from.
    pub timeline: Timeline,
    pub end: Option<Lsn>,
    pub diverged: Option<Diverged>,
}

fn path(site: &Site) -> PathBuf {
    site.kept_dir.join(FILE)
}

impl Note {
    /// `None`: no repair is unfinished. A note that cannot be read is taken for the worst.
    pub fn read(site: &Site) -> Option<Note> {
        let text = fs::read(path(site)).ok()?;
        Some(serde_json::from_slice(&text).unwrap_or_else(|_| Note {
            stage: Stage::Unusable,
            repair: Repair::Rebuild,
            why: "the note of an unfinished repair cannot be read".into(),
            timeline: Timeline(0),
            end: None,
            diverged: None,
        }))
    }

    /// On the disk, wholly or not at all, when this returns.
    pub fn write(&self, site: &Site) -> Result<(), Failed> {
        let failed = |error: &dyn std::fmt::Display| {
            Failed::new(Code::Failed, format!("{} cannot be written: {error}", path(site).display()))
        };
        let new = site.kept_dir.join(format!("{FILE}.new"));
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(&error))?;
        site.runner.write(&new, &text).map_err(|error| failed(&error))?;
        let done = fs::File::open(&new).and_then(|file| file.sync_all());
        done.and_then(|()| fs::rename(&new, path(site)))
            .and_then(|()| fs::File::open(&site.kept_dir)?.sync_all())
            .map_err(|error| failed(&error))
    }

    pub fn remove(site: &Site) {
        let _ = fs::remove_file(path(site));
    }

    /// Why nobody may start a server on this data.
    pub fn forbids_start(&self) -> bool {
        matches!(self.stage, Stage::Unusable | Stage::MovingOut | Stage::MovingIn)
    }
}
