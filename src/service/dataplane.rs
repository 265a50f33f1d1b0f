//! Keeps the udp data plane running as the plan wants it, or not at all.

use crate::plan::ProxyPlan;
use crate::proxy::counters::Meter;
use crate::proxy::{Proxy, Settings};

/// The running data plane, if there is one.
#[derive(Default)]
pub(super) struct DataPlane {
    running: Option<(Proxy, ProxyPlan)>,
}

impl DataPlane {
    /// Makes it run as planned. A new table and whether sources are verified are swapped in; other
    /// settings, and a data plane that has failed, take a new start. Says whether it took one.
    pub(super) fn run(&mut self, wanted: Option<&ProxyPlan>) -> Result<bool, String> {
        let fits = |plan: &ProxyPlan| {
            wanted.is_some_and(|wanted| {
                let verify = plan.settings.verify;
                let settings = Settings {
                    verify,
                    ..wanted.settings.clone()
                };
                plan.settings == settings
            })
        };
        if let Some(failure) = self.failure() {
            tracing::warn!(failure, "the udp data plane broke down; starting it anew");
            self.running = None;
        }
        if self.running.as_ref().is_some_and(|(_, plan)| !fits(plan)) {
            self.running = None;
        }
        let Some(wanted) = wanted else {
            return Ok(false);
        };
        if let Some((proxy, plan)) = &mut self.running {
            if plan.table != wanted.table {
                proxy.set_table(&wanted.table);
                plan.table = wanted.table.clone();
            }
            if plan.settings.verify != wanted.settings.verify {
                proxy.set_verify(wanted.settings.verify);
                plan.settings.verify = wanted.settings.verify;
            }
            return Ok(false);
        }
        let proxy = Proxy::attach(wanted.settings.clone()).map_err(|error| error.to_string())?;
        proxy.set_table(&wanted.table);
        self.running = Some((proxy, wanted.clone()));
        Ok(true)
    }

    /// Tells what it moves and drops.
    pub(super) fn meter(&self) -> Option<Meter> {
        let (proxy, _) = self.running.as_ref()?;
        Some(proxy.meter())
    }

    /// Why it has stopped working by itself, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        let (proxy, _) = self.running.as_ref()?;
        proxy.failure()
    }
}
