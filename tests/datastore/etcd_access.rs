//! etcd behind passwords and certificates, right and wrong ones.

use flannel_rs::cluster::datastore::{CONFIG, Datastore, Event, Fence, StoreError, Watch};
use flannel_rs::cluster::etcd::{Credentials, Etcd, TlsFiles};
use tempfile::TempDir;

use crate::contract::{Bench, put, stored};
use crate::etcd::{KEY, at, one_line, options};
use crate::support::etcd::{ClientCertificate, EtcdServer, EtcdSetup};

pub(crate) fn refusal(error: &StoreError) -> String {
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    one_line(error)
}

pub(crate) fn logged_in(endpoint: &str, user: &str, folder: &TempDir, password: &str) -> Etcd {
    let path = folder.path().join(password);
    std::fs::write(&path, password).unwrap();
    let mut options = options([endpoint.to_owned()]);
    options.credentials = Some(Credentials {
        username: user.to_owned(),
        password_file: path,
    });
    Etcd::new(options).unwrap()
}

#[tokio::test]
async fn logging_in_works_or_says_why_not() {
    let setup = EtcdSetup {
        login: Some(("flannel".to_owned(), "right".to_owned())),
        ..EtcdSetup::default()
    };
    let Some(mut server) = EtcdServer::start_with(setup) else {
        return;
    };
    let (endpoint, folder) = (server.endpoint(), TempDir::new().unwrap());
    let with = |user: &str, password: &str| logged_in(&endpoint, user, &folder, password);
    let text = refusal(&with("flannel", "wrong").list().await.unwrap_err());
    assert!(
        text.contains("check user name and password") && !text.contains("wrong"),
        "{text}"
    );
    let text = refusal(&server.open().list().await.unwrap_err());
    assert!(text.contains("give a user name and a password"), "{text}");
    let store = with("flannel", "right");
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    // a user without any role
    server.etcdctl(&["user", "add", "nobody:x"]);
    let nobody = with("nobody", "x");
    let text = refusal(&nobody.list().await.unwrap_err());
    assert!(text.contains("permission denied"), "{text}");
    refusal(
        &nobody
            .put(put(CONFIG, "x", Fence::Absent))
            .await
            .unwrap_err(),
    );
    refusal(&nobody.watch(from).await.err().unwrap());
    // a restarted server has forgotten all sessions; the watch is the first to know
    server.restart();
    let mut watch = store.watch(from).await.unwrap();
    let second = stored(&store, put(KEY, "two", Fence::Unchanged(from))).await;
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Put(entry)] if entry.revision == second));
}

#[tokio::test]
async fn a_login_for_a_server_without_logins_is_left_out() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let store = logged_in(&server.endpoint(), "root", &folder, "x");
    stored(&store, put(KEY, "one", Fence::Absent)).await;
}

#[tokio::test]
async fn a_login_is_retried_when_the_server_comes_late() {
    let setup = EtcdSetup {
        login: Some(("root".to_owned(), "x".to_owned())),
        ..EtcdSetup::default()
    };
    let Some(mut server) = EtcdServer::start_with(setup) else {
        return;
    };
    server.kill();
    let folder = TempDir::new().unwrap();
    let store = logged_in(&server.endpoint(), "root", &folder, "x");
    let error = store.list().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    server.restart();
    assert_eq!(store.list().await.unwrap().entries, []);
}

pub(crate) fn tls(server: &EtcdServer, ca: &str, client: Option<&str>) -> Etcd {
    let file = |name: &str| server.certificates().file(name);
    let mut options = options([server.endpoint()]);
    options.tls = Some(TlsFiles {
        ca: Some(file(ca)),
        cert: client.map(|name| file(&format!("{name}.pem"))),
        key: client.map(|name| file(&format!("{name}.key"))),
    });
    Etcd::new(options).unwrap()
}

#[tokio::test]
async fn tls_with_a_ca_alone() {
    let setup = EtcdSetup {
        tls: Some(ClientCertificate::Unasked),
        ..EtcdSetup::default()
    };
    let Some(server) = EtcdServer::start_with(setup) else {
        return;
    };
    let store = tls(&server, "ca.pem", None);
    let from = stored(&store, put(KEY, "one", Fence::Absent)).await;
    assert!(store.watch(from).await.is_ok());
    // the client's certificate has signed nothing
    let text = refusal(&tls(&server, "client.pem", None).list().await.unwrap_err());
    assert!(text.contains("check the CA file"), "{text}");
    let text = refusal(&server.open().list().await.unwrap_err());
    assert!(
        text.contains("the CA file") || text.contains("trusts no CA"),
        "{text}"
    );
    let plain = at([server.endpoint().replace("https", "http")]);
    let text = refusal(&plain.list().await.unwrap_err());
    assert!(text.contains("write https://"), "{text}");
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let setup = EtcdSetup {
        tls: Some(ClientCertificate::Required),
        ..EtcdSetup::default()
    };
    let Some(server) = EtcdServer::start_with(setup) else {
        return;
    };
    let store = tls(&server, "ca.pem", Some("client"));
    stored(&store, put(KEY, "one", Fence::Absent)).await;
    let text = refusal(&tls(&server, "ca.pem", None).list().await.unwrap_err());
    assert!(text.contains("client certificate"), "{text}");
}

#[tokio::test]
async fn tls_to_a_plain_server_is_refused() {
    let Some(server) = EtcdServer::start() else {
        return;
    };
    let store = at([server.endpoint().replace("http", "https")]);
    let text = refusal(&store.list().await.unwrap_err());
    assert!(text.contains("write http://"), "{text}");
}
