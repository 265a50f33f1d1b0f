//! Files of ours that are to go. Once they are gone, what comes in their place is somebody else's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::World;
use crate::cluster::subnet::Subnet;
use crate::config::Config;

impl World {
    /// These files have been removed, where they were ours.
    pub(in crate::service) fn removed(&mut self, files: &BTreeMap<PathBuf, Subnet>) {
        let is_left = |path: &PathBuf, about: &mut Subnet| files.get(path) != Some(about);
        self.abandoned.retain(is_left);
        if let Some(remains) = &mut self.withdrawn {
            remains.plan.obsolete.retain(is_left);
        }
    }

    /// The files go elsewhere from now on.
    pub(super) fn abandon(&mut self, next: &Config) {
        match &self.withdrawn {
            // those that have been removed are not ours any more
            Some(remains) => self.abandoned.extend(remains.plan.obsolete.clone()),
            None => {
                let own = self.subnet().or_else(|| self.identity.left_behind());
                let former = self.config.files_for_others();
                let former = former.filter_map(|path| Some((path.clone(), own?)));
                self.abandoned.extend(former);
            }
        }
        let is_left = |path: &PathBuf| next.files_for_others().all(|other| other != path);
        self.abandoned.retain(|path, _| is_left(path));
    }
}
