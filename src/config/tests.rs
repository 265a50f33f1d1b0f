use proptest::prelude::*;

use super::*;
use crate::cluster::network::{Backend, Vxlan};
use crate::cluster::subnet::Subnet;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("c.toml"))
}

/// Every option of the file, in its order.
const FULL: &str = r#"
[node]
name = "node1"
interface = "eth0"
public-ip = "192.168.1.47"
subnet = "100.96.1.0/24"
[datastore]
type = "etcd"
endpoints = ["https://192.168.1.47:2379/", "https://[fd00::1]:2379", "https://etcd"]
prefix = "/coreos.com//network/"
ca-file = "/etc/ca.pem"
cert-file = "/etc/cert.pem"
key-file = "/etc/key.pem"
username = "root"
password-file = "/run/credentials/password"
[network]
network = "100.96.0.0/16"
subnet-len = 24
subnet-min = "100.96.1.0"
subnet-max = "100.96.9.0"
[network.backend]
type = "vxlan"
vni = 7
port = 4789
mtu = 1400
gbp = true
learning = true
direct-routing = true
[docker]
manage-bridge = false
bridge = "cni0"
daemon-json = "/j"
[firewall]
masquerade = false
forward = false
protect-tunnel-port = false
verify-source = false
[host]
repair = true
[udp]
offload = false
port-per-flow = false
[lease]
ttl = "1h 30m"
renew-margin = "10m"
[paths]
state = "/s"
subnet-env = "/e"
docker-env = "/d"
[log]
level = "info,flannel_rs::kernel=debug"
"#;

fn full_network() -> Network {
    Network {
        net: "100.96.0.0/16".parse().unwrap(),
        subnet_len: 24,
        first: "100.96.1.0".parse().unwrap(),
        last: "100.96.9.0".parse().unwrap(),
        backend: Backend::Vxlan(Vxlan {
            vni: 7,
            port: 4789,
            mtu: Some(1400),
            gbp: true,
            learning: true,
            direct_routing: true,
        }),
    }
}

#[test]
fn every_option_is_read() {
    let etcd = Etcd {
        endpoints: [
            "https://192.168.1.47:2379",
            "https://[fd00::1]:2379",
            "https://etcd",
        ]
        .map(String::from)
        .to_vec(),
        ca_file: Some("/etc/ca.pem".into()),
        identity: Some(Identity {
            cert_file: "/etc/cert.pem".into(),
            key_file: "/etc/key.pem".into(),
        }),
        user: Some(User {
            name: "root".to_owned(),
            password_file: "/run/credentials/password".into(),
        }),
    };
    let config = Config {
        node: Node {
            name: Some("node1".to_owned()),
            interface: Interface::Name("eth0".to_owned()),
            public_ip: Some("192.168.1.47".parse().unwrap()),
            subnet: Some(Subnet::new("100.96.1.0/24".parse().unwrap())),
        },
        datastore: Datastore {
            prefix: "/coreos.com/network".to_owned(),
            store: Store::Etcd(etcd),
        },
        network: Some(full_network()),
        docker: Docker {
            manage_bridge: false,
            bridge: "cni0".to_owned(),
            daemon_json: Some("/j".into()),
        },
        firewall: Wishes {
            masquerade: false,
            forward: false,
            protect_tunnel_port: false,
            verify_source: false,
        },
        host: Host { repair: true },
        udp: Tuning {
            offload: false,
            port_per_flow: false,
        },
        lease: Lease {
            ttl: Duration::from_secs(5400),
            renew_margin: Duration::from_secs(600),
        },
        paths: Paths {
            state: "/s".into(),
            subnet_env: "/e".into(),
            docker_env: "/d".into(),
        },
        log: Log {
            level: "info,flannel_rs::kernel=debug".to_owned(),
        },
    };
    assert_eq!(parse(FULL).unwrap(), config);
}

#[test]
fn the_empty_file_means_every_default() {
    let config = parse("").unwrap();
    assert_eq!(
        config,
        parse("[node]\n[datastore]\n[docker]\n[log]\n").unwrap()
    );
    assert_eq!(config.node.name, None);
    assert_eq!(config.node.interface, Interface::DefaultRoute);
    assert_eq!(config.network, None);
    let Store::Etcd(etcd) = config.datastore.store else {
        panic!("{:?}", config.datastore.store);
    };
    assert_eq!(etcd.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(
        (config.docker.manage_bridge, &*config.docker.bridge),
        (true, "docker0")
    );
    assert_eq!(config.firewall, Wishes::default());
    assert!(!config.host.repair);
    assert_eq!(config.udp, Tuning::default());
    assert_eq!(config.lease.ttl, Duration::from_secs(86400));
    assert_eq!(config.lease.renew_margin, Duration::from_secs(3600));
    assert_eq!(
        config.paths.docker_env,
        Path::new("/run/flannel/docker.env")
    );
}

#[test]
fn the_margin_follows_a_short_ttl() {
    for (ttl, margin) in [
        ("2s", 500),
        ("1h", 900_000),
        ("4h", 3_600_000),
        ("9d", 3_600_000),
    ] {
        let config = parse(&format!("[lease]\nttl = \"{ttl}\"")).unwrap();
        assert_eq!(
            config.lease.renew_margin,
            Duration::from_millis(margin),
            "{ttl}"
        );
    }
}

#[test]
fn one_way_to_name_the_interface() {
    let interface = |line: &str| parse(&format!("[node]\n{line}")).unwrap().node.interface;
    let address = "192.168.1.1".parse().unwrap();
    let named = interface("interface = \"192.168.1.1\"");
    assert_eq!(named, Interface::Address(address));
    let reaching = interface("can-reach = \"192.168.1.1\"");
    assert_eq!(reaching, Interface::Reaching(address));
    let Interface::Matching(pattern) = interface("interface-regex = '^en\\d'") else {
        panic!("not a pattern");
    };
    assert!(pattern.matches("eno1") ^ pattern.matches("en1x"));
}

#[test]
fn backends_have_flannels_defaults() {
    let backend = |table: &str| {
        let text = format!("[network]\nnetwork = \"100.96.0.0/16\"\n{table}");
        parse(&text).unwrap().network.unwrap().backend
    };
    assert_eq!(backend(""), Backend::Vxlan(Vxlan::default()));
    assert_eq!(backend("backend.type = \"host-gw\""), Backend::HostGw);
    assert_eq!(
        backend("backend = { type = \"udp\" }"),
        Backend::Udp { port: 8285 }
    );
    assert_eq!(
        backend("backend.type = \"vxlan\""),
        Backend::Vxlan(Vxlan::default())
    );
}

#[test]
fn local_and_prefixes() {
    let datastore = |text: &str| parse(&format!("[datastore]\n{text}")).unwrap().datastore;
    let Store::Local(local) = datastore("type = \"local\"").store else {
        panic!("not local");
    };
    assert_eq!(local.path, Path::new("/var/lib/flannel-rs/store.json"));
    // with and without the first slash are different keys, for flanneld too
    assert_eq!(datastore("prefix = \"/a//b/\"").prefix, "/a/b");
    assert_eq!(datastore("prefix = \"a/b\"").prefix, "a/b");
}

#[test]
fn credentials_lie_in_the_folder_of_the_unit() {
    let text = "[datastore]\nendpoints = [\"https://etcd\"]\nca-file = \"/etc/ca.pem\"\n\
                cert-file = \"%d/cert\"\nkey-file = \"%d/key\"\n\
                username = \"root\"\npassword-file = \"%d/password\"\n";
    let Store::Etcd(etcd) = parse(text).unwrap().datastore.store else {
        panic!("not etcd");
    };
    let moved = etcd.clone().with_credentials(Some(Path::new("/run/c")));
    let moved = moved.unwrap();
    assert_eq!(moved.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    let identity = moved.identity.unwrap();
    assert_eq!(identity.cert_file, Path::new("/run/c/cert"));
    assert_eq!(identity.key_file, Path::new("/run/c/key"));
    let password = moved.user.unwrap().password_file;
    assert_eq!(password, Path::new("/run/c/password"));
    assert_eq!(
        etcd.with_credentials(None).unwrap_err().to_string(),
        "cert-file = \"%d/cert\" names a systemd credential, but $CREDENTIALS_DIRECTORY is not \
         set: start the service by a unit with LoadCredential=cert:FILE, or give the path of the file"
    );
    let plain = Etcd {
        ca_file: Some("/etc/ca.pem".into()),
        endpoints: Vec::new(),
        identity: None,
        user: None,
    };
    assert_eq!(plain.clone().with_credentials(None), Ok(plain));
}

/// `errors.txt` holds inputs, each with the exact text that it is answered with.
#[test]
fn errors_say_where_and_what_would_be_right() {
    let mut count = 0;
    for case in include_str!("tests/errors.txt").split("----\n") {
        let (text, expected) = case.split_once("=>\n").unwrap();
        let error = match parse(text) {
            Ok(config) => panic!("{text}is taken as {config:?}"),
            Err(e) => format!("{e}\n"),
        };
        assert_eq!(error, expected, "for this input:\n{text}");
        count += 1;
    }
    assert!(count > 70, "only {count} cases were read");
}

#[test]
fn no_secret_is_shown() {
    for text in [
        "[datastore]\npassword = \"hunter2\"",
        "[datastore]\n\"PASSWD\" = 'hunter2' # no",
        "[datastore]\npassword = \"hunter2",
        "datastore = { username = \"root\", password = \"hunter2\" }",
        "datastore.password = \"hunter2\"",
        "[datastore]\nendpoints = [\"https://root:hunter2@a:1\"]",
        "[datastore]\nendpoints = [\"https://root:hunter2@a:1\", 7]",
        "[datastore]\nendpoints = [\"https://root:hunter2@a:1\"",
        "[datastore]\nendpoints = [\"root:hunter2@a:1\"]",
        "[datastore]\nendpoints = \"https://root:hunter2@a:1\"",
    ] {
        let error = parse(text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn terminals_are_not_spoken_to() {
    let error = parse("[node]\nname = \"x\" # \u{1b}]0;x\u{7}\n").unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let error = || {
        let error = Config::load(&file).unwrap_err();
        assert_eq!(error.position(), None);
        let text = error.to_string();
        let message = text.strip_prefix(&format!("{}: ", file.display()));
        message.unwrap().to_owned()
    };
    let unread = "the config cannot be read: ";
    assert_eq!(
        error(),
        format!("{unread}No such file or directory (os error 2)")
    );
    std::fs::create_dir(&file).unwrap();
    assert_eq!(error(), format!("{unread}Is a directory (os error 21)"));
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, b"[node]\nname = \"\xff\"\n").unwrap();
    assert_eq!(error(), "line 2 is not UTF-8 text, which TOML has to be");
    std::fs::write(&file, vec![b'\n'; (1 << 20) + 1]).unwrap();
    assert_eq!(
        error(),
        "larger than 1 MiB: this is no config of flannel-rs"
    );
    std::fs::write(&file, FULL).unwrap();
    assert_eq!(Config::load(&file).unwrap(), parse(FULL).unwrap());
}

#[test]
fn the_examples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let backend = |name: &str| {
        let config = Config::load(&folder.join(name)).unwrap_or_else(|e| panic!("{e}"));
        config.network.unwrap().backend
    };
    assert_eq!(backend("host-gw.toml"), Backend::HostGw);
    assert_eq!(backend("vxlan.toml"), Backend::Vxlan(Vxlan::default()));
    assert_eq!(backend("udp.toml"), Backend::Udp { port: 8285 });
    assert_eq!(backend("local.toml"), Backend::Vxlan(Vxlan::default()));
    assert_eq!(backend("static.toml"), Backend::Vxlan(Vxlan::default()));
    let examples = std::fs::read_dir(&folder).unwrap();
    let toml = examples.filter(|f| f.as_ref().unwrap().path().extension() == Some("toml".as_ref()));
    assert_eq!(toml.count(), 5, "an example that is not tested");
}

/// The position lies in the text, and the carets under the line.
fn well_formed(text: &str) {
    let Err(error) = parse(text) else { return };
    let (line, column) = error.position().unwrap();
    let source = text.split('\n').nth(line - 1).unwrap_or_default();
    assert!(column <= source.chars().count() + 1, "{error} in {text:?}");
    let shown = error.to_string();
    let carets = shown.lines().last().unwrap();
    let width = carets.chars().count() - line.to_string().len() - 3;
    assert!(width <= source.chars().count() + 1, "{error} in {text:?}");
    assert!(!error.message().contains('\n'), "{error}");
}

proptest! {
    #[test]
    fn any_text_gives_a_config_or_a_good_error(text in "\\PC*|(\\PC|[\\s\\[\\]=\"'.{},])*") {
        well_formed(&text);
    }

    #[test]
    fn any_damage_gives_a_config_or_a_good_error(
        at in 0..FULL.len(),
        len in 0usize..40,
        with in "\\PC{0,3}|[\n\r\t\"'=#\\[\\]{}\\\\]{0,3}",
    ) {
        let mut text = FULL.to_owned();
        text.replace_range(at..(at + len).min(FULL.len()), &with);
        well_formed(&text);
    }
}
