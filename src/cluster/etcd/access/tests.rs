use super::*;

fn files(folder: &Path) -> Files {
    Files {
        tls: Some(TlsFiles {
            ca: Some(folder.join("ca.pem")),
            ..TlsFiles::default()
        }),
        credentials: Some(Credentials {
            username: "root".to_owned(),
            password_file: folder.join("password"),
        }),
    }
}

#[test]
fn what_the_files_say_does_not_show() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\r\n").unwrap();
    let access = files(folder.path()).read().unwrap();
    let shown = format!("{access:?}");
    assert!(
        shown.contains("«secret»") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert!(!shown.contains("BEGIN"), "{shown}");
    let login = access.login.as_ref().unwrap();
    assert_eq!(login.password.0, "hunter2");
    std::fs::write(folder.path().join("password"), "hunter2").unwrap();
    assert_eq!(files(folder.path()).read().unwrap(), access);
    std::fs::write(folder.path().join("password"), "hunter3").unwrap();
    assert_ne!(files(folder.path()).read().unwrap(), access);
}

#[test]
fn bad_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, password) = (folder.path().join("ca.pem"), folder.path().join("password"));
    let complaint = || files(folder.path()).read().err().unwrap().to_string();
    assert!(complaint().contains(ca.to_str().unwrap()));
    for bytes in ["hello".as_bytes(), &[0xff, 0xfe]] {
        std::fs::write(&ca, bytes).unwrap();
        let text = complaint();
        assert!(
            text.contains("ca.pem: not a PEM file with a certificate"),
            "{text}"
        );
    }
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----").unwrap();
    let expected = format!("cannot read the password of etcd in {}", password.display());
    assert!(complaint().starts_with(&expected), "{}", complaint());
    std::os::unix::fs::symlink("/dev/zero", &password).unwrap();
    assert!(complaint().contains("file too large"), "{}", complaint());
    let mut half = files(folder.path());
    half.tls.as_mut().unwrap().cert = Some(ca);
    let text = half.read().err().unwrap().to_string();
    assert!(text.contains("go together"), "{text}");
}
