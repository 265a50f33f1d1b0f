//! Files that must never be seen half-written.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file could not be written, or removed. What stood there before still does.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}{}", path.display(), hint(source))]
pub(super) struct FileError {
    /// The file.
    pub(super) path: PathBuf,
    /// What the system said.
    #[source]
    pub(super) source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    let kind = error.kind();
    if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind) {
        "; make room on its disk"
    } else if kind == ErrorKind::ReadOnlyFilesystem {
        "; mount it writable, or choose another place in [paths] or [docker]"
    } else if kind == ErrorKind::PermissionDenied {
        "; let the service's user write to its folder"
    } else {
        ""
    }
}

/// Makes a file hold `text`, readable by all (0644) whatever the umask is (flannel trap T73), by
/// way of a synced temporary file and a rename. Creates the folder if it is missing. Says whether
/// anything had to be done.
///
/// # Errors
/// [`FileError`].
pub(super) fn write(path: &Path, text: &str) -> Result<bool, FileError> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(false);
    }
    let failed = |source| FileError {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    fill(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all())
        .inspect_err(|_| {
            // what is left of it is of no use to anybody
            let _ = fs::remove_file(&temporary);
        })
        .map_err(failed)?;
    Ok(true)
}

/// Removes a file if what it says is `obsolete`. Says whether anything had to be done.
///
/// # Errors
/// [`FileError`].
pub(super) fn remove(path: &Path, obsolete: impl Fn(&str) -> bool) -> Result<bool, FileError> {
    let failed = |source| FileError {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) if obsolete(&text) => fs::remove_file(path).map(|()| true).map_err(failed),
        Ok(_) => Ok(false),
        // what is no text is none of ours
        Err(error) if [ErrorKind::NotFound, ErrorKind::InvalidData].contains(&error.kind()) => {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

fn fill(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_once_readable_by_all_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flannel/subnet.env");
        assert!(write(&path, "A=1\n").unwrap());
        assert!(!write(&path, "A=1\n").unwrap());
        assert!(write(&path, "A=2\n").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=2\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        let siblings = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(siblings, 1);
    }

    #[test]
    fn removes_what_is_obsolete_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subnet.env");
        assert!(!remove(&path, |_| true).unwrap());
        fs::write(&path, "A=1\n").unwrap();
        assert!(!remove(&path, |text| text == "A=2\n").unwrap());
        assert!(remove(&path, |text| text == "A=1\n").unwrap());
        assert!(!path.exists());
        fs::write(&path, [0xff]).unwrap();
        assert!(!remove(&path, |_| true).unwrap());
    }

    #[test]
    fn a_failure_names_the_file_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write(&path, "A=1\n").unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
