//! From a config file to a running service, or to a dry run of one.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use claim::claim_namespace;
use tokio::runtime;

use super::cleanup;
use super::daemon::{self, Ends, Parts, Reload};
use super::dbus;
use super::dry_run;
use super::journal::{Log, Occasion, Valve};
use super::machine::Host;
use super::managers;
use super::memory::{Memory, host_name};
use super::status::PlannedChange;
use crate::cluster::datastore::{Datastore, StoreError};
use crate::cluster::etcd::{Credentials, Etcd, EtcdOptions, TlsFiles};
use crate::cluster::fleet::Fleet;
use crate::cluster::local::Local;
use crate::config::{self, Config, ConfigError, CredentialError, Store};

mod claim;

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The config names a credential, and there are none.
    #[error(transparent)]
    Credential(#[from] CredentialError),
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
    /// What is to be cleaned up after is still there.
    #[error(
        "flannel-rs is running in this network namespace, and would put everything back; to have \
         it clean up: flannel-rs cleanup, without --config"
    )]
    StillRunning,
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
            Self::Config(_) | Self::Credential(_) | Self::Store(_) => 78,
            Self::NotPermitted => 77,
            Self::AlreadyRunning | Self::StillRunning => 75,
            Self::Other(_) => 71,
        }
    }
}

/// Runs the service with the config at `path` until it is told to stop.
///
/// # Errors
/// [`StartError`].
pub fn run(path: &Path) -> Result<(), StartError> {
    let config = load(path)?;
    let log = Log::start(&config.log.level).map_err(anyhow::Error::from)?;
    may_administer()?;
    let _only_one = claim_namespace(StartError::AlreadyRunning)?;
    let reload = reload(path.to_owned());
    match &config.datastore.store {
        Store::Etcd(options) => {
            let store = etcd(options, &config.datastore.prefix)?;
            serve(config, reload, store, log.valve())
        }
        Store::Local(options) => {
            let store = Local::open(&options.path)?;
            serve(config, reload, store, log.valve())
        }
        Store::Static(roster) => {
            let store = Fleet::new(roster);
            let declared = store.clone();
            let reload = move || {
                let config = reload()?;
                if let Store::Static(roster) = &config.datastore.store {
                    declared.declare(roster);
                }
                Ok(config)
            };
            serve(config, Box::new(reload), store, log.valve())
        }
    }
}

/// Checks the config at `path` for all hosts, or, without one, this host's.
///
/// # Errors
/// [`StartError::Config`].
pub fn check(path: Option<&Path>) -> Result<(), StartError> {
    match path {
        Some(path) => Config::load(path)?,
        None => load(Path::new(Config::FILE))?,
    };
    Ok(())
}

fn load(path: &Path) -> Result<Config, ConfigError> {
    Config::load_on(&host_name(), path)
}

fn reload(path: PathBuf) -> Reload {
    // a fault is one line; the rest of the text shows the place in the file
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    Box::new(move || load(&path).map_err(|error| first_line(error.to_string())))
}

fn serve<D: Datastore>(
    config: Config,
    reload: Reload,
    store: D,
    valve: Valve,
) -> Result<(), StartError> {
    tracing::info!(
        message_id = Occasion::Started.id(),
        version = env!("CARGO_PKG_VERSION"),
        datastore = store.name(),
        "starting"
    );
    runtime()?.block_on(async {
        let memory = Memory::new(config.paths.state.clone());
        let identity = memory.identity(config.node.name.as_deref(), &config.paths.subnet_env);
        let machine = Host::new(memory, valve).map_err(anyhow::Error::from)?;
        let facade = |ends: Ends, pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(dbus::serve(ends, pulse))
        };
        let attendant = |desk, pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(managers::attend_on(dbus::Bus::System, desk, pulse))
        };
        let parts = Parts {
            config,
            identity,
            reload,
            machine,
            store,
            facade: Box::new(facade),
            attendant: Box::new(attendant),
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
    let config = load(path)?;
    match &config.datastore.store {
        Store::Etcd(options) => {
            let store = etcd(options, &config.datastore.prefix)?;
            Ok(runtime()?.block_on(dry_run::fresh(config, store))?)
        }
        Store::Local(options) => {
            let store = Local::open(&options.path)?;
            Ok(runtime()?.block_on(dry_run::fresh(config, store))?)
        }
        Store::Static(roster) => {
            let store = Fleet::new(roster);
            Ok(runtime()?.block_on(dry_run::fresh(config, store))?)
        }
    }
}

/// Removes what a service that runs no more has left on this host, also where neither the
/// datastore nor the bus can be reached. Answers with what was removed; what is not ours stays,
/// and so does the lease.
///
/// # Errors
/// [`StartError`]; [`StartError::StillRunning`] while the service runs, which would put
/// everything back.
pub fn cleanup(path: &Path) -> Result<Vec<PlannedChange>, StartError> {
    let config = Config::load(path)?;
    may_administer()?;
    let _only_one = claim_namespace(StartError::StillRunning)?;
    Ok(runtime()?.block_on(cleanup::sweep(&config))?)
}

fn etcd(options: &config::Etcd, prefix: &str) -> Result<Etcd, StartError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let options = options.clone().with_credentials(credentials.as_deref())?;
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

/// Better one clear word now than a refusal for each row later.
fn may_administer() -> Result<(), StartError> {
    /// linux/capability.h
    const CAP_NET_ADMIN: u32 = 12;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return Ok(());
    };
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.map(|digits| u64::from_str_radix(digits.trim(), 16));
    match effective {
        Some(Ok(effective)) if effective & 1 << CAP_NET_ADMIN == 0 => Err(StartError::NotPermitted),
        _ => Ok(()),
    }
}
