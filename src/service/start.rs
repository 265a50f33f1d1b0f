//! From a config file to a running service, or to a dry run of one.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use tokio::runtime;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::daemon::{self, Ends, Parts};
use super::dbus;
use super::dry_run;
use super::machine::Host;
use super::memory::Memory;
use super::status::PlannedChange;
use crate::cluster::datastore::{Datastore, StoreError};
use crate::cluster::etcd::{Credentials, Etcd, EtcdOptions, TlsFiles};
use crate::cluster::local::Local;
use crate::config::{self, Config, ConfigError, Store};

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file that the config names is wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process may not alter the network.
    #[error(
        "cannot set up the network without CAP_NET_ADMIN; start the service by systemd or as root"
    )]
    NotPermitted,
    /// There is one already.
    #[error(
        "flannel-rs is already running in this network namespace; two would fight over its links"
    )]
    AlreadyRunning,
    /// The system refused something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl StartError {
    /// The exit code, of sysexits.h: 78 for a config to mend, 77 for a missing permission, 75
    /// for another time, 71 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Store(_) => 78,
            Self::NotPermitted => 77,
            Self::AlreadyRunning => 75,
            Self::Other(_) => 71,
        }
    }
}

/// Runs the service with the config at `path` until it is told to stop.
///
/// # Errors
/// [`StartError`].
pub fn run(path: &Path) -> Result<(), StartError> {
    let config = Config::load(path)?;
    start_log(&config.log.level);
    may_administer()?;
    let _only_one = claim_namespace()?;
    let path = path.to_owned();
    match &config.datastore.store {
        Store::Etcd(options) => {
            let store = etcd(options, &config.datastore.prefix)?;
            serve(config, path, store)
        }
        Store::Local(options) => {
            let store = Local::open(&options.path)?;
            serve(config, path, store)
        }
    }
}

fn serve<D: Datastore>(config: Config, path: PathBuf, store: D) -> Result<(), StartError> {
    // a fault is one line; the rest of the text shows the place in the file
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let reload = move || Config::load(&path).map_err(|error| first_line(error.to_string()));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        datastore = store.name(),
        "starting"
    );
    runtime()?.block_on(async {
        let memory = Memory::new(config.paths.state.clone());
        let identity = memory.identity(config.node.name.as_deref(), &config.paths.subnet_env);
        let machine = Host::new(memory).map_err(anyhow::Error::from)?;
        let facade = |ends: Ends, pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(dbus::serve(ends.status, ends.commands, pulse))
        };
        let parts = Parts {
            config,
            identity,
            reload: Box::new(reload),
            machine,
            store,
            facade: Box::new(facade),
        };
        daemon::run(parts).await;
        Ok(())
    })
}

/// What a service that starts now would change on this host. Reads everything, alters nothing.
///
/// # Errors
/// [`StartError`].
pub fn plan(path: &Path) -> Result<Vec<PlannedChange>, StartError> {
    let config = Config::load(path)?;
    match &config.datastore.store {
        Store::Etcd(options) => {
            let store = etcd(options, &config.datastore.prefix)?;
            Ok(runtime()?.block_on(dry_run::fresh(config, store))?)
        }
        Store::Local(options) => {
            let store = Local::open(&options.path)?;
            Ok(runtime()?.block_on(dry_run::fresh(config, store))?)
        }
    }
}

fn etcd(options: &config::Etcd, prefix: &str) -> Result<Etcd, StartError> {
    let identity = options.identity.as_ref();
    let tls = TlsFiles {
        ca: options.ca_file.clone(),
        cert: identity.map(|identity| identity.cert_file.clone()),
        key: identity.map(|identity| identity.key_file.clone()),
    };
    let credentials = options.user.as_ref().map(|user| Credentials {
        username: user.name.clone(),
        password_file: user.password_file.clone(),
    });
    Ok(Etcd::new(EtcdOptions {
        endpoints: options.endpoints.clone(),
        prefix: prefix.to_owned(),
        tls: (tls != TlsFiles::default()).then_some(tls),
        credentials,
    })?)
}

/// One thread: nothing in it computes for long, and each further one would have the allocator
/// keep a heap of its own. The data plane has its own threads.
fn runtime() -> Result<runtime::Runtime, anyhow::Error> {
    Ok(runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Logs to the journal when stderr is the journal's socket, else to stderr.
fn start_log(level: &str) {
    // a bare level is about this service, not about what its libraries have to say
    let bare = level.parse::<LevelFilter>().is_ok();
    let directives = match bare {
        true => format!("warn,flannel_rs={level}"),
        false => level.to_owned(),
    };
    let filter = || EnvFilter::new(&directives);
    let journal = is_journal()
        .then(tracing_journald::layer)
        .and_then(Result::ok);
    let registry = tracing_subscriber::registry();
    match journal {
        Some(journal) => {
            let priorities = PriorityMappings {
                // the layer's own default files INFO under "notice"
                info: Priority::Informational,
                debug: Priority::Debug,
                ..PriorityMappings::new()
            };
            let journal = journal
                .with_field_prefix(None)
                .with_priority_mappings(priorities);
            registry.with(journal.with_filter(filter())).init();
        }
        None => {
            let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
            let stderr = stderr.with_target(false).with_ansi(false);
            registry.with(stderr.with_filter(filter())).init();
        }
    }
}

/// `$JOURNAL_STREAM` holds device and inode of the socket (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Better one clear word now than a refusal for each row later.
fn may_administer() -> Result<(), StartError> {
    /// linux/capability.h
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match effective {
        Some(set) if set & 1 << CAP_NET_ADMIN == 0 => Err(StartError::NotPermitted),
        _ => Ok(()),
    }
}

/// An abstract socket belongs to the network namespace and goes with the process, however that
/// ends: just what a lock on the namespace needs.
fn claim_namespace() -> Result<Option<UnixListener>, StartError> {
    let claim = || UnixListener::bind_addr(&SocketAddr::from_abstract_name(LOCK)?);
    match claim() {
        Ok(claim) => Ok(Some(claim)),
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            Err(StartError::Other(error.into()))
        }
        Err(_) if holder_is_one_of_us() => Err(StartError::AlreadyRunning),
        Err(_) => {
            // anybody may take such a name, which must not keep the service from starting
            tracing::warn!("some other program holds the abstract socket @{LOCK}");
            Ok(None)
        }
    }
}

/// Whether the holder of the lock is root's, or this user's.
fn holder_is_one_of_us() -> bool {
    let address = SocketAddr::from_abstract_name(LOCK);
    let holder = address.and_then(|address| UnixStream::connect_addr(&address));
    let holder = holder
        .ok()
        .and_then(|holder| getsockopt(&holder, PeerCredentials).ok());
    holder.is_some_and(|holder| [0, geteuid().as_raw()].contains(&holder.uid()))
}

const LOCK: &str = "flannel-rs";
