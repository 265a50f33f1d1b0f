use std::path::Path;

use super::super::{Config, ConfigError, Store};

/// Three nodes, with these lines in `[node]`.
fn fleet(node: &str) -> String {
    format!(
        r#"
[node]
{node}
[datastore]
type = "static"
[datastore.nodes]
node1 = {{ public-ip = "192.168.1.47", subnet = "100.96.1.0/24" }}
node2 = {{ public-ip = "192.168.1.48", subnet = "100.96.2.0/24" }}
[datastore.nodes.node3]
public-ip = "192.168.1.49"
subnet = "100.96.3.0/24"
[network]
network = "100.96.0.0/16"
"#
    )
}

fn on(host: &str, node: &str) -> Result<Config, ConfigError> {
    Config::parse_on(Some(host), &fleet(node), Path::new("c.toml"))
}

#[test]
fn the_nodes_are_read_in_both_spellings() {
    let config = on("node2", "").unwrap();
    let Store::Static(roster) = config.datastore.store else {
        panic!("{:?}", config.datastore.store);
    };
    assert_eq!(Some(&roster.network), config.network.as_ref());
    let members = roster.members.iter();
    let members: Vec<String> = members
        .map(|(name, member)| format!("{name} {} {}", member.public_ip, member.subnet))
        .collect();
    assert_eq!(
        members,
        [
            "node1 192.168.1.47 100.96.1.0/24",
            "node2 192.168.1.48 100.96.2.0/24",
            "node3 192.168.1.49 100.96.3.0/24",
        ]
    );
}

#[test]
fn a_host_finds_itself_by_its_name_or_by_the_one_in_the_config() {
    for (host, node) in [
        ("node2", ""),
        ("elsewhere", "name = \"node2\""),
        (
            "node2",
            "subnet = \"100.96.2.0/24\"\npublic-ip = \"192.168.1.48\"",
        ),
    ] {
        let node = on(host, node).unwrap().node;
        assert_eq!(node.name.as_deref(), Some("node2"));
        assert_eq!(node.public_ip, "192.168.1.48".parse().ok());
        assert_eq!(node.subnet.unwrap().to_string(), "100.96.2.0/24");
    }
}

#[test]
fn a_host_that_is_not_in_the_list_is_told_who_is() {
    let error = on("noed3", "").unwrap_err();
    assert_eq!(error.position(), Some((5, 8)));
    assert_eq!(
        error.message(),
        "this host is called \"noed3\", which is not a node of the fleet: did you mean \"node3\"? \
         there are \"node1\", \"node2\", \"node3\"; or set node.name"
    );
    let error = on("node1", "subnet = \"100.96.2.0/24\"").unwrap_err();
    assert_eq!(
        error.message(),
        "subnet = \"100.96.2.0/24\": [datastore.nodes] says 100.96.1.0/24 for \"node1\": leave it \
         out here"
    );
}

#[test]
fn a_long_list_is_told_in_short() {
    let nodes: String = (1..=200)
        .map(|n| {
            format!(
                "[datastore.nodes.n{n}]\npublic-ip = \"192.168.1.{n}\"\nsubnet = \"100.96.{n}.0/24\"\n"
            )
        })
        .collect();
    let text =
        format!("[datastore]\ntype = \"static\"\n{nodes}[network]\nnetwork = \"100.96.0.0/16\"\n");
    let error = Config::parse_on(Some("x"), &text, Path::new("c.toml")).unwrap_err();
    assert!(
        error.message().contains("\"n109\" and 188 more;"),
        "{error}"
    );
}

/// A config is the same on all hosts, and checked where none of them is at hand.
#[test]
fn no_host_is_needed_to_check_a_fleet() {
    let config = Config::parse(&fleet(""), Path::new("c.toml")).unwrap();
    assert_eq!((config.node.name, config.node.subnet), (None, None));
}
