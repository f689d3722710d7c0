//! How an agent makes its node a standby: as it is, by `pg_rewind`, or by a copy of everything.
//!
//! What PostgreSQL's tools go by are positions and numbers of timelines; where two histories have the same, they take them for
//! one. The agent compares contents as well, and here that is the numbers of records, which only invariants see otherwise.

use pgbaton::cluster::agent::{Code, Deed, Repair, Shutdown};

use crate::agent::{Repairing, Stage, Work};
use crate::invariants::Fact;
use crate::node::{Data, Life};
use crate::plants::Plant;
use crate::wal::Wal;
use crate::world::World;

impl World {
    fn can_repair_by(&self, node: usize, primary: usize) -> bool {
        let source = &self.nodes[primary];
        let is_reachable = !self.net.is_cut(node, primary) && !self.net.is_cut(primary, node);
        primary != node && is_reachable && source.is_up() && source.is_primary()
    }

    pub fn repair(&mut self, node: usize, primary: usize, asked: Repair, work: &Work, stage: Stage) {
        if !self.can_repair_by(node, primary) {
            let reason = format!("{} cannot be reached", self.nodes[primary].id);
            return self.end_work(node, Err((Code::Unreachable, reason)));
        }
        match stage {
            Stage::Repairs(repairing) => self.change_data(node, primary, repairing),
            Stage::Receives(repairing) => self.see_replay(node, primary, repairing, work),
            _ => self.choose_repair(node, primary, asked, 0),
        }
    }

    fn choose_repair(&mut self, node: usize, primary: usize, asked: Repair, tried: u32) {
        let now = self.now;
        self.nodes[node].catch_up(now);
        let server = &self.nodes[node];
        let follows = server.life == Life::Running && server.in_recovery;
        if follows && asked == Repair::Auto && tried == 0 && self.replays_from(node, primary) {
            let deed = Deed { repair: Some(Repair::Follow), ..Deed::default() };
            return self.end_work(node, Ok(deed));
        }
        let has_data = server.data == Data::Present;
        self.stop_server(node, Shutdown::Fast);
        let (mine, leader) = (&self.nodes[node].wal, &self.nodes[primary]);
        let fork = left_at(mine, &leader.wal);
        let assumed = mine.entries.partition_point(|entry| entry.end <= fork);
        let is_same = mine.common(&leader.wal) >= assumed.min(mine.len()) || self.plant == Some(Plant::RewindsBlindly);
        let is_prefix = leader.wal.continues(leader.available(), mine.end(), mine.timeline()).is_ok();
        let way = match asked {
            _ if !has_data || asked == Repair::Rebuild || tried > 1 || !is_same => Repair::Rebuild,
            _ if is_prefix && tried == 0 => Repair::Follow,
            _ if self.random.chance(850) => Repair::Rewind,
            _ => Repair::Rebuild,
        };
        self.say(|world| format!("{} is repaired by {way:?}, its log was left at {fork}", world.nodes[node].id));
        let after = match way {
            Repair::Rebuild => self.random.between(300, 2500),
            Repair::Rewind => self.random.between(100, 1200),
            _ => 5,
        };
        if way != Repair::Follow {
            self.nodes[node].data = Data::Unfinished;
        }
        self.go_on(node, Stage::Repairs(Repairing { way, tried }), after);
    }

    fn replays_from(&self, node: usize, primary: usize) -> bool {
        let server = &self.nodes[node];
        let receives = server.receiver.as_ref().is_some_and(|receiver| receiver.upstream == primary);
        receives && server.diverged_at.is_none() && !server.is_replay_paused
    }

    fn change_data(&mut self, node: usize, primary: usize, repairing: Repairing) {
        let leader = &self.nodes[primary];
        let mut theirs = leader.wal.clone();
        theirs.truncate(leader.flushed);
        let known_timeline = theirs.timeline();
        let server = &mut self.nodes[node];
        match repairing.way {
            Repair::Rebuild => server.wal = theirs,
            Repair::Rewind => {
                // Blocks from before the fork stay as they are, whatever the primary has there.
                let fork = left_at(&server.wal, &theirs);
                let mut wal = Wal::default();
                for entry in server.wal.entries.iter().filter(|entry| entry.end <= fork) {
                    wal.push(*entry);
                }
                for entry in theirs.entries.iter().filter(|entry| entry.end > fork) {
                    wal.push(*entry);
                }
                server.wal = wal;
            }
            _ => {}
        }
        server.flushed = server.wal.len();
        if repairing.way == Repair::Rebuild {
            server.replayed = server.wal.len();
            server.is_replay_paused = false;
        }
        server.replayed = server.replayed.min(server.wal.len());
        server.known_timeline = known_timeline.max(server.wal.timeline());
        server.data = Data::Present;
        server.in_recovery = true;
        server.conninfo = Some(primary);
        server.recruited_for = None;
        server.diverged_at = None;
        server.is_fenced = false;
        if repairing.way != Repair::Follow {
            self.judge(&Fact::Copied { node, primary });
        }
        self.start(node);
        self.go_on(node, Stage::Receives(repairing), 50);
    }

    fn see_replay(&mut self, node: usize, primary: usize, repairing: Repairing, work: &Work) {
        if self.nodes[node].life == Life::Running && self.replays_from(node, primary) {
            let deed = Deed { repair: Some(repairing.way), ..Deed::default() };
            return self.end_work(node, Ok(deed));
        }
        if self.now < work.until {
            return self.go_on(node, Stage::Receives(repairing), 50);
        }
        match repairing.way {
            Repair::Rebuild => {
                self.end_work(node, Err((Code::Failed, "it was made anew, and replays nothing all the same".into())));
            }
            _ => self.choose_repair(node, primary, Repair::Auto, repairing.tried + 1),
        }
    }
}

/// Where one log leaves another as `pg_rewind` finds it: at the end of the last timeline that begins at the same place in both.
fn left_at(mine: &Wal, theirs: &Wal) -> u64 {
    let (mine, theirs) = (mine.stretches(), theirs.stretches());
    let mut fork = 0;
    for (own, other) in mine.iter().zip(&theirs) {
        if (own.0, own.1) != (other.0, other.1) {
            break;
        }
        fork = own.2.min(other.2);
    }
    fork
}
