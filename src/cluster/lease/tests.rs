use proptest::prelude::*;

use super::*;

/// The values of reference §2.5, byte for byte.
#[test]
fn values_of_flanneld_are_read_and_written_unchanged() {
    for text in [
        r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
        r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}"#,
        r#"{"PublicIP":"192.168.64.3","PublicIPv6":"fd00:64::3","BackendType":"host-gw"}"#,
        r#"{"PublicIP":"192.168.64.3","PublicIPv6":null}"#,
    ] {
        assert_eq!(Attrs::from_json(text.as_bytes()).unwrap().to_json(), text);
    }
}

#[test]
fn older_and_foreign_leases_are_read() {
    let old = Attrs::from_json(br#"{"publicip":"1.2.3.4","x":{}}"#).unwrap();
    assert_eq!(
        (old.public_ip, old.backend),
        (Ipv4Addr::new(1, 2, 3, 4), BackendAttrs::Udp)
    );
    let silent = Attrs::from_json(b"{}").unwrap();
    assert_eq!(silent.public_ip, Ipv4Addr::UNSPECIFIED);
    let wireguard = Attrs::from_json(
        br#"{"PublicIP":"1.2.3.4","BackendType":"wireguard","BackendData":{"PublicKey":"x"}}"#,
    );
    assert_eq!(
        wireguard.unwrap().backend,
        BackendAttrs::Other("wireguard".into())
    );
}

#[test]
fn an_empty_mac_is_a_device_to_come() {
    let value =
        br#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":4096,"VtepMAC":""}}"#;
    let vtep = Vtep {
        vni: Some(4096),
        mac: None,
    };
    assert_eq!(
        Attrs::from_json(value).unwrap().backend,
        BackendAttrs::Vxlan(vtep)
    );
}

#[test]
fn garbage_is_refused_with_the_field_named() {
    for (value, want) in [
        ("", "not a JSON object"),
        ("null", "not a JSON object"),
        ("\"x\"", "not a JSON object"),
        (r#"{"PublicIP":null}"#, "PublicIP = null"),
        (r#"{"PublicIP":""}"#, "PublicIP = \"\""),
        (r#"{"PublicIP":"fd00::1"}"#, "PublicIP = \"fd00::1\""),
        (
            r#"{"PublicIP":"1.2.3.4","PublicIPv6":""}"#,
            "PublicIPv6 = \"\"",
        ),
        (
            r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VtepMAC":"zz"}}"#,
            "VtepMAC = \"zz\"",
        ),
        (
            r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":"x"}"#,
            "BackendData = \"x\"",
        ),
    ] {
        let error = Attrs::from_json(value.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(want), "{value}: {error}");
    }
    assert!(Attrs::from_json(&[0xff, 0xfe]).is_err());
}

proptest! {
    #[test]
    fn values_round_trip(ip: u32, v6: Option<u128>, kind in 0..3, vni: Option<u32>, mac: [u8; 6]) {
        let backend = match kind {
            0 => BackendAttrs::Udp,
            1 => BackendAttrs::HostGw,
            _ => BackendAttrs::Vxlan(Vtep { vni, mac: Some(Mac::new(mac)) }),
        };
        let attrs = Attrs { public_ip: ip.into(), public_ipv6: v6.map(Into::into), backend };
        prop_assert_eq!(Attrs::from_json(attrs.to_json().as_bytes()).unwrap(), attrs);
    }

    #[test]
    fn no_bytes_panic(value: Vec<u8>) {
        let _ = Attrs::from_json(&value);
    }
}

#[test]
fn what_is_said_of_a_wrong_value_is_one_short_line() {
    let long = format!("\"{}\"", "x".repeat(100_000));
    let lines = "{\"PublicIP\": {\n\t\"a\": \"\u{9b}2J\" }}";
    for value in [long.as_str(), lines] {
        let error = Attrs::from_json(value.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}
