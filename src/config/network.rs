//! `[network]`: the cluster's network config, for a datastore that holds none.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::error::{Fault, nearest};
use super::raw::{self, Number, Table, Text};
use crate::cluster::network::{Backend, Draft, Network, Vxlan};

/// Reads the table; its own position stands for keys that are missing in it.
pub(super) fn check(table: Spanned<Table<raw::Network>>) -> Result<Network, Fault> {
    let header = table.span();
    let Table(raw) = table.into_inner();
    let Some(text) = &raw.network else {
        let message = "[network] needs the key `network`, such as network = \"100.96.0.0/16\"";
        return Err(Fault::new(header, message));
    };
    let subnet_len = number(&raw.subnet_len, "subnet-len", 1..=30, "expected 1 to 30")?;
    let draft = Draft {
        net: overlay(text)?,
        subnet_len: subnet_len.and_then(|len| u8::try_from(len).ok()),
        first: address(&raw.subnet_min, "subnet-min")?,
        last: address(&raw.subnet_max, "subnet-max")?,
        backend: match raw.backend {
            None => Backend::Vxlan(Vxlan::default()),
            Some(table) => backend(table)?,
        },
    };
    draft.finish().map_err(|e| {
        let span = |text: &Text| text.as_ref().map(Spanned::span);
        let (key, span) = match e.field {
            "SubnetLen" => ("subnet-len", raw.subnet_len.as_ref().map(Spanned::span)),
            // the one that was written, when the other is a default
            "SubnetMin" => (
                "subnet-min",
                span(&raw.subnet_min).or_else(|| span(&raw.subnet_max)),
            ),
            "SubnetMax" => ("subnet-max", span(&raw.subnet_max)),
            _ => ("network", None),
        };
        let reason = e.reason.replace("SubnetMax", "subnet-max");
        let message = format!("{key} = {}: {reason}", e.found);
        Fault::new(span.unwrap_or_else(|| text.span()), message)
    })
}

fn overlay(text: &Spanned<String>) -> Result<Ipv4Net, Fault> {
    const REASON: &str = "expected an IPv4 network such as \"100.96.0.0/16\"";
    let error = |reason: &str| Fault::value(text, "network", reason);
    let net: Ipv4Net = text.get_ref().parse().map_err(|_| error(REASON))?;
    if net.prefix_len() == 0 {
        return Err(error(REASON));
    }
    if net != net.trunc() {
        return Err(error(&format!(
            "host bits are set, expected {}",
            net.trunc()
        )));
    }
    Ok(net)
}

fn address(text: &Text, key: &str) -> Result<Option<Ipv4Addr>, Fault> {
    const REASON: &str = "expected the first address of a subnet, such as \"100.96.1.0\"";
    let Some(text) = text else { return Ok(None) };
    let address: Option<Ipv4Addr> = text.get_ref().parse().ok();
    match address.filter(|address| !address.is_unspecified()) {
        Some(address) => Ok(Some(address)),
        None => Err(Fault::value(text, key, REASON)),
    }
}

fn backend(table: Spanned<Table<raw::Backend>>) -> Result<Backend, Fault> {
    const TYPES: &str = "expected \"host-gw\", \"vxlan\" or \"udp\"";
    let header = table.span();
    let Table(raw) = table.into_inner();
    let Some(kind) = &raw.kind else {
        let message = format!("[network.backend] needs the key `type`: {TYPES}");
        return Err(Fault::new(header, message));
    };
    match kind.get_ref().as_str() {
        "vxlan" => vxlan(&raw).map(Backend::Vxlan),
        "udp" => {
            raw.refuse("udp", &["port"])?;
            let port = port(&raw.port, Backend::UDP_PORT)?;
            Ok(Backend::Udp { port })
        }
        "host-gw" => {
            raw.refuse("host-gw", &[])?;
            Ok(Backend::HostGw)
        }
        other => {
            let hint = nearest(other, ["host-gw", "vxlan", "udp"].into_iter())
                .map(|near| format!("did you mean \"{near}\"? "))
                .unwrap_or_default();
            Err(Fault::value(kind, "type", &format!("{hint}{TYPES}")))
        }
    }
}

impl raw::Backend {
    /// Errs at the first option that the backend `kind` does not have.
    fn refuse(&self, kind: &str, own: &[&str]) -> Result<(), Fault> {
        let given = [
            ("vni", self.vni.as_ref().map(Spanned::span)),
            ("port", self.port.as_ref().map(Spanned::span)),
            ("mtu", self.mtu.as_ref().map(Spanned::span)),
            ("gbp", self.gbp.as_ref().map(Spanned::span)),
            ("learning", self.learning.as_ref().map(Spanned::span)),
            (
                "direct-routing",
                self.direct_routing.as_ref().map(Spanned::span),
            ),
        ];
        let foreign = given
            .into_iter()
            .find(|(key, span)| span.is_some() && !own.contains(key));
        let Some((key, Some(span))) = foreign else {
            return Ok(());
        };
        let whose = if key == "port" {
            "vxlan and udp"
        } else {
            "vxlan"
        };
        let has = match own {
            [] => "none of its own".to_owned(),
            own => format!("only {}", own.join(", ")),
        };
        let message =
            format!("{key} is an option of {whose}: the {kind} backend has {has}, remove it");
        Err(Fault::new(span, message))
    }
}

fn vxlan(raw: &raw::Backend) -> Result<Vxlan, Fault> {
    const VNI: &str = "expected a VXLAN network identifier, 0 to 16777215";
    const MTU: &str = "expected the uplink's MTU in bytes, 118 to 65535";
    let vni = number(&raw.vni, "vni", 0..=0xff_ffff, VNI)?;
    let switch = |switch: &raw::Switch| switch.as_ref().is_some_and(|on| *on.get_ref());
    Ok(Vxlan {
        vni: vni.unwrap_or(1),
        port: port(&raw.port, Vxlan::PORT)?,
        mtu: number(&raw.mtu, "mtu", 118..=65535, MTU)?,
        gbp: switch(&raw.gbp),
        learning: switch(&raw.learning),
        direct_routing: switch(&raw.direct_routing),
    })
}

fn port(value: &Number, default: u16) -> Result<u16, Fault> {
    let port = number(value, "port", 1..=65535, "expected a UDP port, 1 to 65535")?;
    Ok(port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(default))
}

fn number(
    value: &Number,
    key: &str,
    range: std::ops::RangeInclusive<u32>,
    reason: &str,
) -> Result<Option<u32>, Fault> {
    let Some(value) = value else { return Ok(None) };
    match u32::try_from(*value.get_ref()) {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(Fault::value(value, key, reason)),
    }
}
