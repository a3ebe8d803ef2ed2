//! Where a consumer puts bytes: beside the target first, under its name only when whole.
//!
//! The part lies in `.NAME.HASH.part`, where HASH is of the transfer; `.NAME.HASH.state` beside it says how much of it
//! is durable and of which version. Both survive a crash: the next pull of the same transfer goes on from there. The
//! state outlives the name that the part was given, until the transfer's completion is committed: a pull that finds
//! its own file under the name after a crash has nothing more to do.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blake3::Hasher;
use bytes::Bytes;
use kontor_core::id::ProcessId;
use serde::{Deserialize, Serialize};

use super::source::member_path;
use crate::model::FlowReport;

/// Why bytes cannot be put down.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Not a path below the root.
    #[error(
        "`{path}` is no place below the sink root `{root}`; a relative path without `.` and `..` would have passed"
    )]
    Outside {
        /// What was asked for.
        path: String,
        /// The root.
        root: String,
    },
    /// The target is there already.
    #[error("`{0}` exists already and is not overwritten; another path would have passed")]
    Exists(String),
    /// No room left, or no quota.
    #[error("the disk is full: `{path}` could not be written ({reason}); make room and resume the transfer")]
    DiskFull {
        /// What was written.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Another pull of the same transfer is at it.
    #[error("another pull of this transfer is writing `{0}`")]
    Busy(String),
    /// The system says no.
    #[error("writing `{path}` failed: {source}")]
    Io {
        /// What was written.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SinkError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, reason: source.to_string() }
            }
            io::ErrorKind::AlreadyExists => Self::Exists(path),
            _ => Self::Io { path, source },
        }
    }
}

/// A place below a sink root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) part: PathBuf,
    pub(crate) state: PathBuf,
}

impl Target {
    /// Finds the place and makes the directories on the way to it. A symbolic link on the way that leads out of the
    /// root is refused.
    pub(crate) fn make(root: &Path, path: &str, transfer: &ProcessId) -> Result<Self, SinkError> {
        Self::locate(root, path, transfer, true)
    }

    /// Finds the place, if the directories on the way to it exist.
    pub(crate) fn find(root: &Path, path: &str, transfer: &ProcessId) -> Result<Self, SinkError> {
        Self::locate(root, path, transfer, false)
    }

    fn locate(root: &Path, path: &str, transfer: &ProcessId, make: bool) -> Result<Self, SinkError> {
        let outside = || SinkError::Outside { path: path.to_owned(), root: root.display().to_string() };
        let below = Path::new(path).strip_prefix(root).ok().and_then(Path::to_str).unwrap_or(path);
        let relative = member_path(below).map_err(|_| outside())?;
        let name = relative.file_name().and_then(|name| name.to_str()).ok_or_else(outside)?;
        let root = root.canonicalize().map_err(|error| SinkError::io(root, error))?;
        let mut directory = root.clone();
        for step in relative.parent().into_iter().flat_map(Path::components) {
            let next = directory.join(step);
            if make {
                match fs::create_dir(&next) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(SinkError::io(&next, error));
                    }
                    _ => {}
                }
            }
            directory = next.canonicalize().map_err(|error| SinkError::io(&next, error))?;
            if !directory.starts_with(&root) {
                return Err(outside());
            }
        }
        let digest = blake3::hash(transfer.as_str().as_bytes()).to_hex();
        let hash = digest.get(..16).unwrap_or(&digest);
        Ok(Self {
            part: directory.join(format!(".{name}.{hash}.part")),
            state: directory.join(format!(".{name}.{hash}.state")),
            path: directory.join(name),
        })
    }

    /// Whether something has the name already, be it a dangling link.
    pub(crate) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// What is known of the part.
    pub(crate) fn state(&self) -> Option<PartState> {
        serde_json::from_slice(&fs::read(&self.state).ok()?).ok()
    }

    /// What an earlier pull of the same transfer brought whole and verified, before it could say so: given its name
    /// now, if that is still to be done. `None` where there is no such thing; whatever else has the name is not ours.
    pub(crate) fn received(&self) -> Result<Option<Received>, SinkError> {
        let Some(PartState { bytes, digest: Some(digest), inode: Some(inode), reports, .. }) = self.state() else {
            return Ok(None);
        };
        if inode_of(&self.path) == Some(inode) {
            // By a hard link; the other name may not be gone yet.
            if inode_of(&self.part) == Some(inode) {
                fs::remove_file(&self.part).map_err(|error| SinkError::io(&self.part, error))?;
            }
        } else if inode_of(&self.part) == Some(inode) {
            self.publish()?;
        } else {
            return Ok(None);
        }
        Ok(Some(Received { bytes, digest, reports }))
    }

    /// Writes down that all is there and verified, and what has it.
    pub(crate) fn save_received(&self, etag: Option<String>, received: Received) -> Result<(), SinkError> {
        let Received { bytes, digest, reports } = received;
        let inode = inode_of(&self.part);
        self.save(&PartState { etag, bytes, digest: Some(digest), inode, reports })
    }

    fn save(&self, state: &PartState) -> Result<(), SinkError> {
        let fail = |error| SinkError::io(&self.state, error);
        let mut draft = self.state.clone().into_os_string();
        draft.push("~");
        let mut file = File::create(&draft).map_err(fail)?;
        file.write_all(&serde_json::to_vec(state).unwrap_or_default()).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        fs::rename(&draft, &self.state).map_err(fail)
    }

    /// Forgets what [`Self::received`] goes by, once nobody will ask any more.
    pub(crate) fn forget_received(&self) {
        if self.state().is_some_and(|state| state.digest.is_some()) {
            let _ = fs::remove_file(&self.state);
        }
    }

    /// Waits until no pull writes the part any more, but not for long, then removes it. A pull that was told to stop
    /// still makes durable what came, and would leave its state behind.
    #[expect(clippy::disallowed_methods, reason = "on a thread for blocking work, see `discard_parts`")]
    pub(crate) fn discard_when_idle(&self) {
        for _ in 0..DISCARD_TRIES {
            let free = match File::open(&self.part).map(|part| part.try_lock()) {
                Ok(Err(TryLockError::WouldBlock)) => false,
                // Directories are not locked, their members are: tried until nothing new appears.
                _ => {
                    self.discard();
                    self.part.symlink_metadata().is_err()
                }
            };
            if free {
                return;
            }
            std::thread::sleep(DISCARD_PAUSE);
        }
        self.discard();
    }

    /// Removes the part, be it a file or a directory, and its state.
    pub(crate) fn discard(&self) {
        let removed = match self.part.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.part),
            Ok(_) => fs::remove_file(&self.part),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %self.part.display(), "a part could not be removed");
        }
        let _ = fs::remove_file(&self.state);
    }

    /// Gives a part its name, unless something has it, and makes that durable.
    pub(crate) fn publish(&self) -> Result<(), SinkError> {
        let fail = |error| SinkError::io(&self.path, error);
        if self.exists() {
            return Err(SinkError::Exists(self.path.display().to_string()));
        }
        let is_dir = self.part.symlink_metadata().map_err(fail)?.is_dir();
        // A hard link refuses a name that was taken in between; some file systems have none.
        match (!is_dir).then(|| fs::hard_link(&self.part, &self.path)) {
            Some(Ok(())) => fs::remove_file(&self.part).map_err(fail)?,
            Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => return Err(fail(error)),
            Some(Err(_)) | None => fs::rename(&self.part, &self.path).map_err(fail)?,
        }
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

/// How often a part that is still written is looked at before it is removed all the same.
const DISCARD_TRIES: u32 = 40;
/// The pause between.
const DISCARD_PAUSE: Duration = Duration::from_millis(50);

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), SinkError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| SinkError::io(path, error))
}

/// What is known of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartState {
    /// The strong entity tag of the version that it is of.
    pub(crate) etag: Option<String>,
    /// How much of it is durable.
    pub(crate) bytes: u64,
    /// BLAKE3 of the whole, once it is whole and verified.
    #[serde(default)]
    pub(crate) digest: Option<String>,
    /// Device and inode of what is whole: the same under either name.
    #[serde(default)]
    inode: Option<(u64, u64)>,
    /// The flows that brought it, for a pull that was killed before it could report them.
    #[serde(default)]
    reports: Vec<FlowReport>,
}

/// What was brought whole and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// How many bytes.
    pub(crate) bytes: u64,
    /// BLAKE3, as in the result of the pull.
    pub(crate) digest: String,
    /// The flows that brought it.
    pub(crate) reports: Vec<FlowReport>,
}

fn inode_of(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// A part that is being written. All its methods block.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    target: Target,
    etag: Option<String>,
    bytes: u64,
    durable: u64,
    checkpoint_bytes: u64,
    whole: Hasher,
    flow: Option<Hasher>,
}

impl PartFile {
    /// Opens the part, at what is durable of it; or begins a new one.
    pub(crate) fn open(target: Target, checkpoint_bytes: u64) -> Result<Self, SinkError> {
        let fail = |error| SinkError::io(&target.part, error);
        let kept = target.part.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        if !kept && target.part.symlink_metadata().is_ok() {
            // A link or something else that we did not put there.
            fs::remove_file(&target.part).map_err(fail)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&target.part).map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(SinkError::Busy(target.part.display().to_string())),
            // A file system without locks; the check is a courtesy.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let state = target.state().filter(|state| kept && state.etag.is_some()).unwrap_or_default();
        let mut part = Self {
            file,
            etag: state.etag,
            bytes: 0,
            durable: 0,
            checkpoint_bytes,
            whole: Hasher::new(),
            flow: None,
            target,
        };
        part.take_up(state.bytes).map_err(|error| SinkError::io(&part.target.part, error))?;
        Ok(part)
    }

    fn take_up(&mut self, durable: u64) -> io::Result<()> {
        if self.file.metadata()?.len() >= durable {
            let mut buffer = vec![0; 256 * 1024];
            while self.bytes < durable {
                let wanted = usize::try_from(durable - self.bytes).unwrap_or(usize::MAX).min(buffer.len());
                let space = buffer.get_mut(..wanted).unwrap_or_default();
                self.file.read_exact(space)?;
                self.whole.update(space);
                self.bytes += wanted as u64;
            }
        }
        self.durable = self.bytes;
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }

    /// How much is there.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The version that it is of.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Throws away what is there: the source is of this version now.
    pub(crate) fn restart(&mut self, etag: Option<String>) -> Result<(), SinkError> {
        let _ = fs::remove_file(&self.target.state);
        self.etag = etag;
        self.whole = Hasher::new();
        (self.bytes, self.durable) = (0, 0);
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map(drop)
            .map_err(|error| SinkError::io(&self.target.part, error))
    }

    /// From here on, a new flow is counted.
    pub(crate) fn begin_flow(&mut self) {
        // The first flow and the whole have the same digest: computed once.
        self.flow = (self.bytes > 0).then(Hasher::new);
    }

    /// BLAKE3 of what the flow brought.
    pub(crate) fn flow_digest(&self) -> String {
        self.flow.as_ref().unwrap_or(&self.whole).finalize().to_hex().to_string()
    }

    /// BLAKE3 of all that is there.
    pub(crate) fn digest(&self) -> String {
        self.whole.finalize().to_hex().to_string()
    }

    /// Writes some buffers as one.
    pub(crate) fn write(&mut self, buffers: &[Bytes]) -> Result<(), SinkError> {
        write_all(&mut self.file, buffers).map_err(|error| SinkError::io(&self.target.path, error))?;
        for buffer in buffers {
            self.whole.update(buffer);
            if let Some(flow) = &mut self.flow {
                flow.update(buffer);
            }
            self.bytes += buffer.len() as u64;
        }
        if self.bytes - self.durable >= self.checkpoint_bytes {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes durable what is there, so that a later pull can go on from it.
    pub(crate) fn checkpoint(&mut self) -> Result<(), SinkError> {
        self.file.sync_data().map_err(|error| SinkError::io(&self.target.path, error))?;
        self.durable = self.bytes;
        let state = PartState { etag: self.etag.clone(), bytes: self.durable, ..PartState::default() };
        self.target.save(&state)
    }

    /// All is there and verified, by these flows: gives it its name. The state stays, see [`Target::received`].
    pub(crate) fn finish(mut self, reports: Vec<FlowReport>) -> Result<(u64, String), SinkError> {
        let digest = self.digest();
        self.file.sync_all().map_err(|error| SinkError::io(&self.target.path, error))?;
        self.durable = self.bytes;
        let received = Received { bytes: self.bytes, digest: digest.clone(), reports };
        self.target.save_received(self.etag.clone(), received)?;
        self.target.publish()?;
        Ok((self.bytes, digest))
    }

    /// Removes it.
    pub(crate) fn discard(self) {
        self.target.discard();
    }
}

fn write_all(file: &mut File, buffers: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        buffers.iter().filter(|buffer| !buffer.is_empty()).map(|buffer| IoSlice::new(buffer)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn transfer() -> ProcessId {
        ProcessId::parse("urn:uuid:t1").unwrap()
    }

    #[test]
    fn a_place_outside_the_root_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(other.path(), root.path().join("out")).unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "out/x"] {
            let refused = Target::make(root.path(), path, &transfer());
            assert!(matches!(refused, Err(SinkError::Outside { .. })), "{path}: {refused:?}");
        }
        let absolute = root.path().join("a/b");
        assert!(Target::make(root.path(), absolute.to_str().unwrap(), &transfer()).is_ok());
        assert!(!other.path().join("x").exists());
    }

    #[test]
    fn a_part_goes_on_from_what_was_durable_and_never_overwrites() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::make(root.path(), "d/file", &transfer()).unwrap();
        let mut part = PartFile::open(target.clone(), 1 << 20).unwrap();
        part.restart(Some("\"v1\"".to_owned())).unwrap();
        part.write(&[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]).unwrap();
        part.checkpoint().unwrap();
        part.write(&[Bytes::from_static(b"lost in the crash")]).unwrap();
        assert!(matches!(PartFile::open(target.clone(), 1), Err(SinkError::Busy(_))));
        drop(part);

        let mut part = PartFile::open(target.clone(), 1 << 20).unwrap();
        assert_eq!((part.bytes(), part.etag()), (4, Some("\"v1\"")));
        part.begin_flow();
        part.write(&[Bytes::from_static(b"ef")]).unwrap();
        assert_eq!(part.flow_digest(), blake3::hash(b"ef").to_hex().to_string());
        assert_eq!(part.finish(Vec::new()).unwrap(), (6, blake3::hash(b"abcdef").to_hex().to_string()));
        assert_eq!(fs::read(&target.path).unwrap(), b"abcdef");
        target.forget_received();
        assert_eq!(fs::read_dir(root.path().join("d")).unwrap().count(), 1, "nothing is left beside it");

        let mut again = PartFile::open(target.clone(), 1 << 20).unwrap();
        again.write(&[Bytes::from_static(b"other")]).unwrap();
        assert!(matches!(again.finish(Vec::new()), Err(SinkError::Exists(_))));
        assert_eq!(fs::read(&target.path).unwrap(), b"abcdef");
        assert!(matches!(target.received(), Err(SinkError::Exists(_))), "what has the name is not what was brought");
    }

    #[test]
    fn what_was_whole_when_the_power_went_is_not_fetched_again() {
        let root = tempfile::tempdir().unwrap();
        let whole = Received { bytes: 2, digest: blake3::hash(b"ab").to_hex().to_string(), reports: Vec::new() };
        for steps_before_the_end in ["none", "the link", "all"] {
            let target = Target::make(root.path(), steps_before_the_end, &transfer()).unwrap();
            fs::write(&target.part, b"ab").unwrap();
            target.save_received(None, whole.clone()).unwrap();
            match steps_before_the_end {
                "none" => {}
                "the link" => fs::hard_link(&target.part, &target.path).unwrap(),
                _ => target.publish().unwrap(),
            }
            assert_eq!(target.received().unwrap().as_ref(), Some(&whole), "{steps_before_the_end}");
            assert_eq!(fs::read(&target.path).unwrap(), b"ab", "{steps_before_the_end}");
            assert!(!target.part.exists(), "{steps_before_the_end}");
            target.forget_received();
            assert_eq!(target.received().unwrap(), None, "{steps_before_the_end}");
        }
    }

    #[test]
    fn a_full_disk_has_a_name() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::make(root.path(), "file", &transfer()).unwrap();
        let mut part = PartFile::open(target, 1 << 20).unwrap();
        part.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = part.write(&[Bytes::from_static(b"x")]).unwrap_err();
        assert!(matches!(error, SinkError::DiskFull { .. }), "{error:?}");
        part.discard();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
