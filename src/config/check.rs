//! From the shape of the file to a [`Config`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::error::{Fault, nearest};
use super::raw::{self, Switch, Text};
use super::{Config, Docker, Host, Lease, Log, Paths, Store, fleet};
use crate::kernel::firewall::Wishes;
use crate::proxy::Tuning;

impl raw::Config {
    /// With the host's name, the host must find itself in a fleet.
    pub(super) fn check(self, host: Option<&str>) -> Result<Config, Fault> {
        let network = self.network.map(super::network::check).transpose()?;
        let asked = self.node.0.clone();
        let mut node = self.node.0.check(network.as_ref())?;
        let kind = self.datastore.0.kind.as_ref().map(Spanned::span);
        let datastore = self.datastore.0.check(network.as_ref())?;
        if let Store::Static(roster) = &datastore.store {
            fleet::join(roster, &asked, &mut node, host, kind.unwrap_or_default())?;
        }
        let paths = self.paths.0.check()?;
        let docker = self.docker.0.check(&paths)?;
        Ok(Config {
            node,
            datastore,
            network,
            docker,
            firewall: self.firewall.0.check(),
            host: Host {
                repair: self.host.0.repair.is_some_and(Spanned::into_inner),
            },
            udp: self.udp.0.check(),
            lease: self.lease.0.check()?,
            paths,
            log: self.log.0.check()?,
        })
    }
}

impl raw::Docker {
    fn check(self, paths: &Paths) -> Result<Docker, Fault> {
        let bridge = match self.bridge {
            None => "docker0".to_owned(),
            Some(name) => {
                interface_name(&name, "bridge")?;
                let of_tunnel = name.get_ref().strip_prefix("flannel");
                if of_tunnel.is_some_and(|rest| rest == "0" || rest.starts_with('.')) {
                    let reason = "a name that the tunnel takes, expected one such as \"docker0\"";
                    return Err(Fault::value(&name, "bridge", reason));
                }
                name.into_inner()
            }
        };
        Ok(Docker {
            manage_bridge: self.manage_bridge.is_none_or(Spanned::into_inner),
            bridge,
            daemon_json: (self.daemon_json)
                .map(|text| daemon_json(&text, paths))
                .transpose()?,
        })
    }
}

/// A file that is the service's alone.
fn daemon_json(text: &Spanned<String>, paths: &Paths) -> Result<PathBuf, Fault> {
    const KEY: &str = "daemon-json";
    let path = absolute(text, KEY)?;
    if [&paths.subnet_env, &paths.docker_env].contains(&&path) {
        let reason = "another file of this service is there, give it a place of its own";
        return Err(Fault::value(text, KEY, reason));
    }
    if path == Path::new("/etc/docker/daemon.json") {
        let reason = "that file is yours, and the service's unit may not write there: expected a \
                      place such as \"/run/flannel/daemon.json\", for dockerd --config-file";
        return Err(Fault::value(text, KEY, reason));
    }
    Ok(path)
}

impl raw::Firewall {
    fn check(self) -> Wishes {
        let ordinary = Wishes::default();
        Wishes {
            masquerade: or(self.masquerade, ordinary.masquerade),
            forward: or(self.forward, ordinary.forward),
            protect_tunnel_port: or(self.protect_tunnel_port, ordinary.protect_tunnel_port),
            verify_source: or(self.verify_source, ordinary.verify_source),
        }
    }
}

impl raw::Udp {
    fn check(self) -> Tuning {
        let ordinary = Tuning::default();
        Tuning {
            offload: or(self.offload, ordinary.offload),
            port_per_flow: or(self.port_per_flow, ordinary.port_per_flow),
        }
    }
}

fn or(switch: Switch, ordinary: bool) -> bool {
    switch.map_or(ordinary, Spanned::into_inner)
}

impl raw::Lease {
    fn check(self) -> Result<Lease, Fault> {
        const HOUR: Duration = Duration::from_secs(3600);
        const RANGE: &str = "expected whole seconds, 2s or more, such as \"24h\"";
        const MAX: Duration = Duration::from_secs(9_000_000_000);
        let ttl = match &self.ttl {
            None => 24 * HOUR,
            Some(text) => {
                let ttl = duration(text, "ttl", "24h")?;
                if ttl < Duration::from_secs(2) || ttl.subsec_nanos() != 0 {
                    return Err(Fault::value(text, "ttl", RANGE));
                }
                if ttl > MAX {
                    let reason = "above 9000000000s, the longest lease that etcd gives";
                    return Err(Fault::value(text, "ttl", reason));
                }
                ttl
            }
        };
        let renew_margin = match &self.renew_margin {
            None => HOUR.min(ttl / 4),
            Some(text) => {
                let margin = duration(text, "renew-margin", "1h")?;
                if margin.is_zero() || margin >= ttl {
                    let ttl = humantime::format_duration(ttl);
                    let reason = format!("expected more than 0s and less than the ttl, {ttl}");
                    return Err(Fault::value(text, "renew-margin", &reason));
                }
                margin
            }
        };
        Ok(Lease { ttl, renew_margin })
    }
}

impl raw::Paths {
    fn check(self) -> Result<Paths, Fault> {
        let path = |text: Text, key, default: &str| match text {
            None => Ok(PathBuf::from(default)),
            Some(text) => absolute(&text, key),
        };
        Ok(Paths {
            state: path(self.state, "state", "/var/lib/flannel-rs")?,
            subnet_env: path(self.subnet_env, "subnet-env", "/run/flannel/subnet.env")?,
            docker_env: path(self.docker_env, "docker-env", "/run/flannel/docker.env")?,
        })
    }
}

impl raw::Log {
    fn check(self) -> Result<Log, Fault> {
        let Some(text) = self.level else {
            let level = "info".to_owned();
            return Ok(Log { level });
        };
        match log_level(text.get_ref()) {
            Ok(()) => Ok(Log {
                level: text.into_inner(),
            }),
            Err(reason) => Err(Fault::value(&text, "level", &reason)),
        }
    }
}

/// Whether `text` is a level or directives as in [`Log::level`].
///
/// # Errors
/// Why it is not, in a text for people that names what there is.
pub(crate) fn log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const EXPECTED: &str = "expected off, error, warn, info, debug or trace, \
                            or directives such as \"info,flannel_rs::kernel=debug\"";
    /// Far more than anybody needs; each target is compared with at every event.
    const LENGTH: usize = 1000;
    if text.len() > LENGTH || text.contains(char::is_control) {
        return Err(EXPECTED.to_owned());
    }
    // tracing reads a misspelt level as the name of a target, and logs everything of it; and an
    // empty one as "error"
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    for word in text.split(',').map(str::trim) {
        if !word.contains(['=', '[', ']']) && !is_level(word) {
            let hint = nearest(word, LEVELS.into_iter())
                .map(|level| format!("did you mean \"{level}\"? "))
                .unwrap_or_default();
            return Err(format!("{hint}{EXPECTED}"));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map(drop)
        .map_err(|_| EXPECTED.to_owned())
}

/// A path that means the same whatever folder the service was started in.
pub(super) fn absolute(text: &Spanned<String>, key: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text.get_ref());
    if !path.is_absolute() || text.get_ref().contains('\0') {
        let reason = "expected an absolute path, one that begins with /";
        return Err(Fault::value(text, key, reason));
    }
    Ok(path)
}

/// The kernel's rule, `dev_valid_name` in net/core/dev.c.
pub(super) fn interface_name(text: &Spanned<String>, key: &str) -> Result<(), Fault> {
    let name = text.get_ref();
    let odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        let reason = "expected an interface name of 1 to 15 bytes without blanks, / and :";
        return Err(Fault::value(text, key, reason));
    }
    Ok(())
}

fn duration(text: &Spanned<String>, key: &str, example: &str) -> Result<Duration, Fault> {
    humantime::parse_duration(text.get_ref()).map_err(|e| {
        let e = e.to_string();
        // what follows is a list of all units
        let why = e.split(", supported").next().unwrap_or_default();
        let reason = format!("{why}; expected a duration such as \"{example}\" or \"90s\"");
        Fault::value(text, key, &reason)
    })
}
