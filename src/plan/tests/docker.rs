use super::*;

#[test]
fn dockers_options_also_go_to_a_file_in_its_own_format() {
    let path = PathBuf::from("/run/flannel/daemon.json");
    for (masquerade, ip_masq) in [(true, "false"), (false, "true")] {
        let mut node = node(r#"{"Type":"vxlan"}"#);
        node.bridge = None;
        node.daemon_json = Some(path.clone());
        node.firewall.masquerade = masquerade;
        let text = &plan(&node, []).files[&path];
        assert_eq!(
            *text,
            format!(
                "{{\n  \"bip\": \"100.96.1.1/24\",\n  \"ip-masq\": {ip_masq},\n  \"mtu\": 1450\n}}\n"
            )
        );
        serde_json::from_str::<serde_json::Value>(text).unwrap();
        // what is told to be ours may be removed
        assert!(is_about(text, node.lease.subnet));
        let other = Subnet::new("100.96.2.0/24".parse().unwrap());
        assert!(!is_about(text, other));
    }
}
