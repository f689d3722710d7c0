//! Making a node a standby again: as it is, by `pg_rewind`, or by a copy of everything, whichever is the cheapest that is right.

use super::{Failed, Place, Server, Site, Steps};
use crate::cluster::agent::{Code, Deed, Repair};

/// Ends when the node receives from the primary and replays what it receives. Can be dropped at any moment (a newer order has
/// come), and called again.
pub async fn rejoin(
    _site: &Site,
    _server: &dyn Server,
    _primary: &Place,
    _repair: Repair,
    _steps: &Steps,
) -> Result<Deed, Failed> {
    Err(Failed::new(Code::Impossible, "not built yet"))
}
