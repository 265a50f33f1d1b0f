use super::*;

#[test]
fn a_prefix_is_cleaned_as_in_go() {
    for (prefix, expected) in [
        ("/coreos.com/network", "/coreos.com/network/"),
        ("/coreos.com/network/", "/coreos.com/network/"),
        ("//coreos.com///network//", "/coreos.com/network/"),
        ("coreos.com/network", "coreos.com/network/"),
        ("/a/./b/../c", "/a/c/"),
        ("/../a", "/a/"),
        ("../a", "../a/"),
        ("a/../..", "../"),
        ("/", "/"),
        ("", ""),
        (".", ""),
    ] {
        assert_eq!(folder(prefix), expected, "{prefix:?}");
    }
}

#[test]
fn an_endpoint_gets_its_scheme_and_must_have_a_port() {
    for (text, tls, expected) in [
        ("http://10.0.0.1:2379", false, "http://10.0.0.1:2379"),
        (
            " https://etcd-1.lan:2379/ ",
            true,
            "https://etcd-1.lan:2379",
        ),
        ("HTTPS://[fd00::1]:2379", true, "https://[fd00::1]:2379"),
        ("10.0.0.1:2379", false, "http://10.0.0.1:2379"),
        ("10.0.0.1:2379", true, "https://10.0.0.1:2379"),
    ] {
        assert_eq!(endpoint(text, tls).unwrap(), expected);
    }
    for text in [
        "",
        "http://",
        "http://10.0.0.1",
        "http://10.0.0.1:0",
        "http://10.0.0.1:65536",
        "ftp://10.0.0.1:2379",
        "http://10.0.0.1:2379/path",
        "http://a b:2379",
        "fd00::1:2379",
    ] {
        assert!(endpoint(text, false).is_err(), "{text:?}");
    }
}

#[test]
fn a_password_in_a_url_does_not_show() {
    let mut options = EtcdOptions {
        endpoints: vec!["http://user:hunter2@10.0.0.1:2379".to_owned()],
        ..EtcdOptions::default()
    };
    let error = urls(&options).err().unwrap().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    options.endpoints = vec!["http://10.0.0.1:2379".to_owned()];
    options.tls = Some(TlsFiles::default());
    let error = urls(&options).err().unwrap().to_string();
    assert!(error.contains("https://"), "{error}");
}
