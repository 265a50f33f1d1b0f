use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Network, NetworkError> {
    Network::from_json(text)
}

/// Reference §1.3: `10.3.0.0/16` gives 24, 10.3.1.0, 10.3.255.0; no backend means udp.
#[test]
fn flannels_defaults() {
    let network = parse(r#"{"network":"10.3.7.9/16"}"#).unwrap();
    assert_eq!(network.net.to_string(), "10.3.0.0/16");
    assert_eq!(network.subnet_len, 24);
    assert_eq!(network.first, Ipv4Addr::new(10, 3, 1, 0));
    assert_eq!(network.last, Ipv4Addr::new(10, 3, 255, 0));
    assert_eq!(network.backend, Backend::Udp { port: 8285 });
}

#[test]
fn lengths_follow_the_network() {
    for (net, len) in [
        ("10.0.0.0/22", 24),
        ("10.0.0.0/23", 25),
        ("10.0.0.0/28", 30),
    ] {
        assert_eq!(
            parse(&format!(r#"{{"Network":"{net}"}}"#))
                .unwrap()
                .subnet_len,
            len
        );
    }
}

#[test]
fn every_vxlan_option_is_read_in_any_case() {
    let network = parse(
        r#"{"NETWORK":"10.3.0.0/16","Backend":{"type":"VXLAN","vni":7,"Port":4789,
            "mtu":1400,"gbp":true,"Learning":true,"directrouting":true,"x":1},"Other":[]}"#,
    );
    let vxlan = Vxlan {
        vni: 7,
        port: 4789,
        mtu: Some(1400),
        gbp: true,
        learning: true,
        direct_routing: true,
    };
    assert_eq!(network.unwrap().backend, Backend::Vxlan(vxlan));
}

#[test]
fn the_last_of_several_spellings_wins() {
    let network = parse(r#"{"network":"10.3.0.0/16","NETWORK":"10.4.0.0/16"}"#).unwrap();
    assert_eq!(network.net.to_string(), "10.4.0.0/16");
}

const ERRORS: &[(&str, &str)] = &[
    ("[]", "not a JSON object"),
    ("{", "not a JSON object"),
    ("{}", "Network is missing"),
    (r#"{"Network":"0.0.0.0/0"}"#, "Network is missing"),
    (
        r#"{"Network":null}"#,
        "Network = null: expected an IPv4 network",
    ),
    (
        r#"{"Network":"10.3.0.0"}"#,
        r#"Network = "10.3.0.0": expected an IPv4 network"#,
    ),
    (
        r#"{"Network":"10.3.0.0/29"}"#,
        "Network = 10.3.0.0/29: too small",
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetLen":"24"}"#,
        r#"SubnetLen = "24": expected"#,
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetLen":17}"#,
        "SubnetLen = 17: expected 18 to 30",
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetLen":31}"#,
        "SubnetLen = 31: expected 18 to 30",
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetMin":"10.4.0.0"}"#,
        "SubnetMin = 10.4.0.0: outside",
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.9.1"}"#,
        "SubnetMax = 10.3.9.1: not the start",
    ),
    (
        r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.9.0","SubnetMax":"10.3.8.0"}"#,
        "SubnetMin = 10.3.9.0: above",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{}}"#,
        "Backend.Type is missing",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":null}"#,
        "Backend.Type is missing",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"ipip"}}"#,
        r#"the backend "ipip" is not"#,
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}"#,
        "VNI = -1: expected",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#,
        "VNI = 16777216",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","Port":70000}}"#,
        "Port = 70000",
    ),
    (
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","MTU":60}}"#,
        "MTU = 60",
    ),
    (
        r#"{"Network":"10.3.0.0/16","EnableIPv6":true}"#,
        "EnableIPv6 = true is not supported",
    ),
    (
        r#"{"Network":"10.3.0.0/16","EnableIPv4":false}"#,
        "EnableIPv4 = false is not supported",
    ),
    (
        r#"{"Network":"10.3.0.0/16","EnableIPv6":1}"#,
        "EnableIPv6 = 1: expected true or false",
    ),
];

#[test]
fn errors_name_the_key_and_the_reason() {
    for (text, want) in ERRORS {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn subnets_run_from_the_first_to_the_last() {
    let network = parse(r#"{"Network":"10.3.0.0/28","SubnetLen":30}"#).unwrap();
    let subnets: Vec<_> = network.subnets().map(Subnet::key).collect();
    assert_eq!(subnets, ["10.3.0.4-30", "10.3.0.8-30", "10.3.0.12-30"]);
    assert!(network.subnets().all(|subnet| network.allows(subnet)));
    assert!(!network.allows(Subnet::from_key("10.3.0.0-30").unwrap()));
    assert!(!network.allows(Subnet::from_key("10.3.0.8-29").unwrap()));
}

#[test]
fn the_last_subnet_of_the_address_space_does_not_overflow() {
    let network = parse(r#"{"Network":"255.255.0.0/16"}"#).unwrap();
    assert_eq!(network.subnets().count(), 255);
}

proptest! {
    #[test]
    fn own_json_reads_back(bits: u32, prefix in 8u8..=28, extra in 2u8..=8, vni in 0u32..1 << 24, kind in 0..3) {
        let backend = match kind {
            0 => Backend::HostGw,
            1 => Backend::Udp { port: 8285 },
            _ => Backend::Vxlan(Vxlan { vni, gbp: vni % 2 == 0, ..Vxlan::default() }),
        };
        let draft = Draft {
            net: Ipv4Net::new(bits.into(), prefix).unwrap(),
            subnet_len: Some((prefix + extra).min(30)),
            first: None,
            last: None,
            backend,
        };
        let network = draft.finish().unwrap();
        prop_assert_eq!(parse(&network.to_json()).unwrap(), network);
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = parse(&text);
    }
}

#[test]
fn what_is_said_of_a_long_backend_name_is_short() {
    let kind = "x".repeat(100_000);
    let text = format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"Type":"{kind}"}}}}"#);
    let error = Network::from_json(&text).unwrap_err().to_string();
    assert!(
        error.contains("the backend") && error.len() < 400,
        "{error}"
    );
}
