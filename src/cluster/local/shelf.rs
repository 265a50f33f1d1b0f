//! The file itself: read whole, replaced whole.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Millis};
use crate::cluster::datastore::StoreError;
use crate::cluster::json::line;

/// How long a writer waits for others, and between two tries.
const LOCK: Duration = Duration::from_secs(10);
const LOCK_AGAIN: Duration = Duration::from_millis(2);
/// A larger file, in bytes, is not ours.
const LARGEST: u64 = 64 << 20;
/// The layout of the file.
const FORMAT: u32 = 1;

/// Where the file is.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) path: PathBuf,
    lock: PathBuf,
    draft: PathBuf,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    format: u32,
    /// Made up with the file. Empty while there is none.
    pub(super) cluster: String,
    pub(super) ledger: Ledger,
}

/// What a watch knows of the file without reading it again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    identity: Option<Identity>,
    expiry: Option<Millis>,
}

/// A file as the file system tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Shelf {
    pub(super) fn new(path: PathBuf) -> Self {
        let beside = |ending: &str| {
            let mut name = path.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            lock: beside(".lock"),
            draft: beside(".new"),
            path,
        }
    }

    pub(super) fn read(&self) -> Result<Book, StoreError> {
        let mut bytes = Vec::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Book::empty()),
            Err(error) => return Err(self.failed("reading", &error)),
        }
        if bytes.len() as u64 > LARGEST {
            return Err(self.corrupt(&format!("it is larger than {LARGEST} bytes")));
        }
        let book: Book = serde_json::from_slice(&bytes)
            .map_err(|error| self.corrupt(&line(&error.to_string())))?;
        if book.format != FORMAT {
            return Err(self.corrupt(&format!("it has the unknown format {}", book.format)));
        }
        match book.ledger.fault() {
            Some(fault) => Err(self.corrupt(fault)),
            None => Ok(book),
        }
    }

    /// The file without what has expired.
    pub(super) fn current(&self) -> Result<Book, StoreError> {
        let book = self.read()?;
        if book
            .ledger
            .next_expiry()
            .is_none_or(|expiry| expiry > now())
        {
            return Ok(book);
        }
        self.change(|_, _| ())?;
        self.read()
    }

    /// The file, unless it is still the one that was `seen` and nothing in it has expired.
    pub(super) fn look(&self, seen: Seen) -> Result<Option<(Book, Seen)>, StoreError> {
        // before reading, so that a file that comes in between counts as another
        let identity = Identity::of(&self.path);
        let expired = seen.expiry.is_some_and(|expiry| expiry <= now());
        if identity.is_some() && identity == seen.identity && !expired {
            return Ok(None);
        }
        let book = self.current()?;
        let seen = Seen {
            // Another file may get the same inode within one tick of the file system's clock.
            identity: identity.filter(Identity::is_settled),
            expiry: book.ledger.next_expiry(),
        };
        Ok(Some((book, seen)))
    }

    /// Changes the ledger as the only one who does, after what has expired is gone.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Ledger, Millis) -> T,
    ) -> Result<T, StoreError> {
        let _lock = self.lock()?;
        let mut book = self.read()?;
        let before = book.ledger.revision();
        let now = now();
        book.ledger.purge(now);
        let result = change(&mut book.ledger, now);
        if book.ledger.revision() != before {
            if book.cluster.is_empty() {
                book.cluster = format!("{:016x}", rand::random::<u64>());
            }
            self.write(&book)
                .map_err(|error| self.failed("writing", &error))?;
        }
        Ok(result)
    }

    /// Replaces the file so that it is one or the other whenever power or process go.
    fn write(&self, book: &Book) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(book)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut draft = options.open(&self.draft)?;
        draft.write_all(&bytes)?;
        draft.sync_all()?;
        std::fs::rename(&self.draft, &self.path)?;
        let folder = self
            .path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Holds off other writers, also of other processes, until dropped.
    fn lock(&self) -> Result<File, StoreError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| self.failed("making the folder of", &e))?;
        }
        let start = Instant::now();
        while start.elapsed() < LOCK {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options
                .open(&self.lock)
                .map_err(|e| self.failed("locking", &e))?;
            match file.try_lock() {
                Ok(()) if Identity::of_open(&file) == Identity::of(&self.lock) => return Ok(file),
                // somebody removed it meanwhile, and a new one may be locked
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN),
                Err(TryLockError::Error(error)) => return Err(self.failed("locking", &error)),
            }
        }
        let reason = format!("another process has held it for {} s", LOCK.as_secs());
        Err(self.unavailable("locking", &reason))
    }

    fn failed(&self, doing: &str, error: &std::io::Error) -> StoreError {
        let kind = error.kind();
        if !matches!(
            kind,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        ) {
            return self.unavailable(doing, &error.to_string());
        }
        StoreError::Refused {
            doing: format!("{doing} {}", self.path.display()),
            reason: error.to_string(),
        }
    }

    pub(super) fn unavailable(&self, doing: &str, reason: &str) -> StoreError {
        StoreError::Unavailable {
            doing: format!("{doing} {}", self.path.display()),
            reason: reason.to_owned(),
        }
    }

    fn corrupt(&self, fault: &str) -> StoreError {
        StoreError::Corrupt {
            doing: format!("reading {}", self.path.display()),
            reason: format!("{fault}; put back a backup, or move it away to start anew"),
        }
    }
}

impl Book {
    fn empty() -> Self {
        Self {
            format: FORMAT,
            cluster: String::new(),
            ledger: Ledger::default(),
        }
    }
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|data| Self::from(&data))
    }

    fn of_open(file: &File) -> Option<Self> {
        file.metadata().ok().map(|data| Self::from(&data))
    }

    /// Whether it was made long enough ago for the next one to have another time.
    fn is_settled(&self) -> bool {
        let (seconds, _) = self.modified;
        let modified = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        modified.saturating_add(2000) < now()
    }
}

impl From<&Metadata> for Identity {
    fn from(data: &Metadata) -> Self {
        Self {
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }
}

/// The wall clock, for other processes and boots must agree on it.
fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Millis::try_from(since.unwrap_or_default().as_millis()).unwrap_or(Millis::MAX)
}
