//! The host config, TOML.

use std::path::Path;
use std::time::Duration;

use flannel_rs::cluster::fleet::Roster;
use flannel_rs::cluster::network::Network;
use flannel_rs::config::{Config, ConfigError, Store};

use super::assert_presentable;
use super::network::assert_sound;

/// Reads the text of the host config.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text, Path::new("c.toml")) {
        Ok(config) => accepted(&config),
        Err(error) => refused(text, &error),
    }
}

fn accepted(config: &Config) {
    if let Some(network) = &config.network {
        assert_sound(network);
        assert_eq!(Network::from_json(&network.to_json()).as_ref(), Ok(network));
        let subnet = config.node.subnet;
        assert!(subnet.is_none_or(|subnet| network.allows(subnet)));
    }
    let (ttl, margin) = (config.lease.ttl, config.lease.renew_margin);
    assert!(ttl >= Duration::from_secs(2) && ttl.subsec_nanos() == 0);
    assert!(!margin.is_zero() && margin < ttl);
    let prefix = &config.datastore.prefix;
    assert!(
        config
            .docker
            .daemon_json
            .as_ref()
            .is_none_or(|path| path.is_absolute())
    );
    assert!(!prefix.is_empty() && !prefix.ends_with('/') && !prefix.contains("//"));
    for path in [
        &config.paths.state,
        &config.paths.subnet_env,
        &config.paths.docker_env,
    ] {
        assert!(path.is_absolute(), "{path:?}");
    }
    match &config.datastore.store {
        Store::Local(local) => assert!(local.path.is_absolute()),
        Store::Static(roster) => assert_members(roster),
        Store::Etcd(etcd) => {
            assert!(!etcd.endpoints.is_empty());
            etcd.endpoints.iter().for_each(|url| assert_url(url));
        }
    }
}

/// All with a place in the network, no two in the same.
fn assert_members(roster: &Roster) {
    let members: Vec<_> = roster.members.values().collect();
    assert!(!members.is_empty());
    for (at, member) in members.iter().enumerate() {
        assert!(roster.network.allows(member.subnet));
        for other in &members[..at] {
            assert!(!member.subnet.overlaps(other.subnet));
            assert_ne!(member.public_ip, other.public_ip);
        }
    }
}

/// Scheme, host and perhaps a port, and nothing that a URL cannot hold.
fn assert_url(url: &str) {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let host = rest.unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
    assert!(!host.is_empty() && host.chars().all(fits), "{url:?}");
}

/// The position lies in the text, and what is shown is the line there with carets below it.
fn refused(text: &str, error: &ConfigError) {
    assert_presentable(error.message());
    let Some((line, column)) = error.position() else {
        panic!("a text that was read has a position for what is wrong with it");
    };
    assert!(line >= 1 && column >= 1);
    let there = text.split('\n').nth(line - 1);
    let width = there.map(|there| there.chars().count());
    assert!(
        width.is_some_and(|width| column <= width + 1),
        "{line}:{column}"
    );
    let shown = error.to_string();
    let lines: Vec<&str> = shown.split('\n').collect();
    let [head, _, source, carets] = lines[..] else {
        panic!("not four lines: {shown:?}");
    };
    assert!(head.starts_with(&format!("c.toml:{line}:{column}: ")));
    assert!(source.starts_with(&format!("{line} | ")));
    let is_odd = |c: char| c.is_control() && c != '\t';
    assert!(!source.contains(is_odd), "{source:?}");
    let carets = carets.trim_start_matches([' ', '|', '\t']);
    assert!(!carets.is_empty() && carets.chars().all(|c| c == '^'));
}
