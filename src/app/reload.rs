//! The configuration while pgbaton runs: read again, applied as far as that can be, and shown.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::{Running, StartError, settings};
use crate::config::{Config, keys};

impl Running {
    /// Every key with its value, its default, and whether a reload changes it.
    pub(super) fn config_rows(&self) -> Vec<[String; 4]> {
        let entries = self.config.lock().unwrap_or_else(PoisonError::into_inner).entries();
        let row = |(path, value): (String, String)| {
            let mut keys = keys::KEYS.iter().filter(|key| key.path() == path || key.section == path).peekable();
            let default = keys.peek().filter(|key| key.path() == path).and_then(|key| key.default).unwrap_or_default();
            let reloads = keys.all(|key| key.reloads);
            [path, value, default.to_owned(), if reloads { "yes" } else { "no" }.to_owned()]
        };
        entries.into_iter().map(row).collect()
    }

    /// Reads the configuration file again and applies what can change. The answer names what was applied and what waits
    /// for a restart; a file with mistakes changes nothing.
    pub async fn reload(&self) -> Result<String, String> {
        let Some(path) = &self.config_path else { return Err("there is no configuration file".into()) };
        // One after the other.
        let _turn = self.reloading.lock().await;
        let report = self.apply(path).await.map_err(|error| error.to_string());
        match &report {
            Ok(report) => tracing::info!("reload: {report}"),
            Err(error) => tracing::error!("reload refused, nothing changed: {error}"),
        }
        report
    }

    async fn apply(&self, path: &Path) -> Result<String, StartError> {
        let new = Config::load(path)?;
        let (changes, level) = {
            let current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            (current.changes(&new), current.log.level.clone())
        };
        // Everything that can fail comes before anything is changed.
        let login = settings::login(&new, self.control.clone(), self.shared.login.load().mock.clone())?;
        let nodes = settings::nodes(&new)?;
        let set_level = |to: &str| self.level.as_ref().map_or(Ok(()), |level| level.set(to));
        set_level(&new.log.level).map_err(|reason| StartError::Setting { key: "log.level", reason })?;
        if let Err(reason) = self.cluster.set_nodes(nodes.clone()).await {
            // It was in force a moment ago.
            let _ = set_level(&level);
            return Err(StartError::Setting { key: "cluster.nodes", reason });
        }
        self.shared.login.store(Arc::new(login));
        self.shared.settings.store(Arc::new(settings::session(&new)));
        self.shared.pools.set_limits(settings::limits(&new));
        self.shared.readers.settings.store(Arc::new(settings::reads(&new)));
        // After their weights: now they can be asked how far they are, without which nobody reads from them.
        self.control.set_nodes(&nodes.reached);
        let overrides = settings::overrides(&new);
        self.said.store(Arc::new(overrides.clone()));
        for database in self.shared.databases() {
            database.facts.set_overrides(overrides.clone());
        }
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = new;
        let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        Ok(format!("applied: {}; needs a restart: {}", list(&changes.applied), list(&changes.needs_restart)))
    }
}
