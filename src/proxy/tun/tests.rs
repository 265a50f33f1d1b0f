use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_missing_node_says_what_to_load() {
    let error = available(Path::new("/nonexistent/net/tun")).unwrap_err();
    assert!(matches!(error, ProxyError::TunMissing { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("/nonexistent/net/tun") && text.contains("modprobe tun"),
        "{text}"
    );
}

#[test]
fn a_node_without_a_driver_counts_as_missing() {
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join("tun");
    symlink("/nonexistent", &node).unwrap();
    let error = available(&node).unwrap_err();
    assert!(matches!(error, ProxyError::TunMissing { .. }), "{error:?}");
}

#[test]
fn names_that_the_kernel_would_alter_or_refuse_are_refused() {
    for name in [
        "",
        ".",
        "..",
        "flannel%d",
        "flannel/0",
        "flannel 0",
        "flannel0\0",
        "flännel0",
        "sixteen-letters.",
    ] {
        let error = Device::open(name, true, 1).unwrap_err();
        assert!(
            matches!(error, ProxyError::DeviceName { .. }),
            "{name:?}: {error:?}"
        );
    }
    assert!(check("fifteen-letters").is_ok());
}

#[test]
fn each_refusal_of_the_kernel_has_its_meaning() {
    let meaning = |errno| refusal("flannel0", io::Error::from_raw_os_error(errno));
    assert!(matches!(
        meaning(libc::EPERM),
        ProxyError::NotPermitted { .. }
    ));
    assert!(
        meaning(libc::EPERM)
            .to_string()
            .contains("flannel0: this takes CAP_NET_ADMIN")
    );
    assert!(matches!(
        meaning(libc::EBUSY),
        ProxyError::DeviceBusy { .. }
    ));
    assert!(matches!(meaning(libc::EINVAL), ProxyError::NotATun { .. }));
    assert!(matches!(meaning(libc::ENFILE), ProxyError::Device { .. }));
}
