//! Where bytes come from: files and directories below configured roots.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use super::DataLimits;
use crate::model::SourceSpec;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Outside of every root, perhaps by a symbolic link.
    #[error("`{path}` is not below a source root; one of these would have passed: {roots}")]
    Outside {
        /// What was asked for.
        path: String,
        /// The roots.
        roots: String,
    },
    /// The path of a member has `..`, is absolute, or is empty.
    #[error("`{0}` is not the path of a member; a relative path without `.` and `..` would have passed")]
    Traversal(String),
    /// A file of a directory whose name cannot be told.
    #[error(
        "the name of `{0}` cannot be told to others; one in UTF-8 without `\\` and control characters would have passed"
    )]
    Unnamed(String),
    /// Nothing there.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// A pipe, a device, a directory where a file was meant, or the other way round.
    #[error("`{path}` is not a {wanted}")]
    WrongKind {
        /// What was asked for.
        path: String,
        /// What was meant.
        wanted: &'static str,
    },
    /// A directory with more than we list.
    #[error("the directory has more than {limit} files, or directories more than {depth} deep")]
    TooMany {
        /// [`DataLimits::directory_entries_max`].
        limit: usize,
        /// [`DataLimits::directory_depth_max`].
        depth: usize,
    },
    /// Shorter than it was when it was opened.
    #[error("the source shrank from {was} bytes to {now} while it was read")]
    Shrunk {
        /// Bytes at the start.
        was: u64,
        /// Bytes now.
        now: u64,
    },
    /// Removed or replaced.
    #[error("the source was removed or replaced while it was read")]
    Vanished,
    /// Written to.
    #[error("the source was changed while it was read")]
    Changed,
    /// The system says no.
    #[error("reading `{path}` failed: {source}")]
    Io {
        /// What was read.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound(path.display().to_string()),
            _ => Self::Io { path: path.display().to_string(), source },
        }
    }
}

/// The directories below which sources may lie. None: no source opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceRoots(Vec<PathBuf>);

impl SourceRoots {
    /// Takes the roots that exist, with symbolic links resolved; the others are told in the log and hold nothing.
    #[must_use]
    pub fn lenient(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        let known = roots.into_iter().filter_map(|root| {
            canonical_directory(&root).inspect_err(|error| tracing::warn!(%error, "a source root is left out")).ok()
        });
        Self(known.collect())
    }

    /// Takes the roots, with symbolic links resolved.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] or [`SourceError::WrongKind`] when one is no directory.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Result<Self, SourceError> {
        roots.into_iter().map(|root| canonical_directory(&root)).collect::<Result<_, _>>().map(Self)
    }

    /// Finds out whether a source could be opened now. For the one who describes a dataset; it may change later.
    ///
    /// # Errors
    /// [`SourceError`] with what would have passed.
    pub fn check(&self, spec: &SourceSpec) -> Result<(), SourceError> {
        self.resolve(spec).map(drop)
    }

    /// The source that a specification names.
    ///
    /// # Errors
    /// [`SourceError`] when it is missing, outside of the roots, or of another kind.
    pub fn resolve(&self, spec: &SourceSpec) -> Result<Source, SourceError> {
        match spec {
            SourceSpec::File { path } => {
                let file = Source::File(self.confined(Path::new(path))?);
                file.open(None)?;
                Ok(file)
            }
            SourceSpec::Directory { path } => {
                Ok(Source::Directory(canonical_directory(&self.confined(Path::new(path))?)?))
            }
        }
    }

    fn confined(&self, path: &Path) -> Result<PathBuf, SourceError> {
        // A root that holds nothing is no way to probe what exists: the lexical check comes first.
        let outside = || SourceError::Outside {
            path: path.display().to_string(),
            roots: self.0.iter().map(|root| format!("`{}`", root.display())).collect::<Vec<_>>().join(", "),
        };
        // A relative path is below the first root that has it.
        let named = if path.is_absolute() {
            path.to_path_buf()
        } else {
            let below = self.0.iter().map(|root| root.join(path));
            below
                .clone()
                .find(|candidate| candidate.exists())
                .or_else(|| below.clone().next_back())
                .ok_or_else(outside)?
        };
        let real = named.canonicalize().map_err(|error| SourceError::io(path, error))?;
        if self.0.iter().any(|root| real.starts_with(root)) { Ok(real) } else { Err(outside()) }
    }
}

fn canonical_directory(path: &Path) -> Result<PathBuf, SourceError> {
    let real = path.canonicalize().map_err(|error| SourceError::io(path, error))?;
    if real.is_dir() {
        Ok(real)
    } else {
        Err(SourceError::WrongKind { path: path.display().to_string(), wanted: "directory" })
    }
}

/// Something to read from, below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One file.
    File(PathBuf),
    /// The files below a directory.
    Directory(PathBuf),
}

/// One line of the listing of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Path below the directory, with `/`.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// The strong entity tag of this version; may be missing from other providers.
    #[serde(default)]
    pub etag: String,
}

/// The listing of a directory: regular files only, sorted by path; those that no request could name are
/// left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The files.
    pub entries: Vec<IndexEntry>,
}

impl Source {
    /// Opens the file, or one file of the directory. Blocks.
    ///
    /// # Errors
    /// [`SourceError`] when there is no such regular file within the source.
    pub fn open(&self, member: Option<&str>) -> Result<OpenedSource, SourceError> {
        let (base, path) = match (self, member) {
            (Self::File(path), None) => (path, path.clone()),
            (Self::Directory(base), Some(member)) => (base, base.join(member_path(member)?)),
            (Self::File(_), Some(member)) => return Err(SourceError::NotFound(member.to_owned())),
            (Self::Directory(base), None) => {
                return Err(SourceError::WrongKind { path: base.display().to_string(), wanted: "file" });
            }
        };
        let fail = |error| SourceError::io(&path, error);
        let within = |path: &Path| -> Result<PathBuf, SourceError> {
            let real = path.canonicalize().map_err(fail)?;
            if real.starts_with(base) {
                Ok(real)
            } else {
                Err(SourceError::NotFound(member.unwrap_or_default().to_owned()))
            }
        };
        let real = within(&path)?;
        // Before opening: opening a pipe would wait for its writer.
        if !fs::metadata(&real).map_err(fail)?.is_file() {
            return Err(SourceError::WrongKind { path: path.display().to_string(), wanted: "regular file" });
        }
        let file = File::open(&real).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        // A link that was swapped in between shows here: what we hold must still be reachable within the base.
        let again = fs::metadata(within(&path)?).map_err(fail)?;
        if !metadata.is_file() || (metadata.dev(), metadata.ino()) != (again.dev(), again.ino()) {
            return Err(SourceError::Changed);
        }
        Ok(OpenedSource { media_type: media_type(&path), stamp: Stamp::of(&metadata), file, path })
    }

    /// Lists the directory. Blocks.
    ///
    /// # Errors
    /// [`SourceError::TooMany`], or what the system said; [`SourceError::WrongKind`] for a file.
    pub fn index(&self, limits: &DataLimits) -> Result<Index, SourceError> {
        let Self::Directory(base) = self else {
            return Err(SourceError::WrongKind { path: "the source".to_owned(), wanted: "directory" });
        };
        let too_many =
            || SourceError::TooMany { limit: limits.directory_entries_max, depth: limits.directory_depth_max };
        let mut entries = Vec::new();
        let mut seen = 0_usize;
        let mut rest = vec![(base.clone(), 0_usize)];
        while let Some((directory, depth)) = rest.pop() {
            for entry in fs::read_dir(&directory).map_err(|error| SourceError::io(&directory, error))? {
                let path = entry.map_err(|error| SourceError::io(&directory, error))?.path();
                seen += 1;
                if seen > limits.directory_entries_max {
                    return Err(too_many());
                }
                let metadata = fs::symlink_metadata(&path).map_err(|error| SourceError::io(&path, error))?;
                if metadata.is_dir() {
                    if depth == limits.directory_depth_max {
                        return Err(too_many());
                    }
                    rest.push((path, depth + 1));
                } else if metadata.is_file() {
                    // To leave it out without a word would make a whole of a part.
                    let unnamed = || SourceError::Unnamed(path.display().to_string());
                    let name = path.strip_prefix(base).ok().and_then(Path::to_str).ok_or_else(unnamed)?;
                    member_path(name).map_err(|_| unnamed())?;
                    let etag = Stamp::of(&metadata).etag();
                    entries.push(IndexEntry { path: name.to_owned(), bytes: metadata.len(), etag });
                }
            }
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Index { entries })
    }
}

/// The path of a member, made only of names.
///
/// # Errors
/// [`SourceError::Traversal`] otherwise.
pub(crate) fn member_path(member: &str) -> Result<PathBuf, SourceError> {
    let refuse = || SourceError::Traversal(member.to_owned());
    let path = Path::new(member);
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    // `components` forgives `a//b`, `a/./b` and a trailing slash; a name must have one spelling.
    let canonical = member.split('/').all(|name| !name.is_empty() && name != "." && name != "..");
    if !plain || !canonical || member.contains('\\') || member.chars().any(char::is_control) {
        return Err(refuse());
    }
    Ok(path.to_path_buf())
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }

    /// A strong entity tag: 128 bits of BLAKE3 over device, inode, size and time of modification in nanoseconds. It
    /// tells nothing of them, and changes with any of them.
    fn etag(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.device.to_le_bytes());
        hasher.update(&self.inode.to_le_bytes());
        hasher.update(&self.bytes.to_le_bytes());
        hasher.update(&self.modified_ns.to_le_bytes());
        let hex = hasher.finalize().to_hex();
        format!("\"{}\"", hex.get(..32).unwrap_or(&hex))
    }
}

/// A file that is open, as it was when it was opened.
pub struct OpenedSource {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    media_type: &'static str,
}

impl fmt::Debug for OpenedSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OpenedSource").field("path", &self.path).field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

impl OpenedSource {
    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// The strong entity tag of this version, with its quotes.
    #[must_use]
    pub fn etag(&self) -> String {
        self.stamp.etag()
    }

    /// The media type that its name suggests.
    #[must_use]
    pub fn media_type(&self) -> &'static str {
        self.media_type
    }

    /// Fills the buffer from the offset on. Blocks.
    ///
    /// # Errors
    /// [`SourceError::Shrunk`], [`SourceError::Vanished`], [`SourceError::Changed`]: what was read must not be used,
    /// since it may be of another version.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), SourceError> {
        let read = self.file.read_exact_at(buffer, offset);
        // Looked at after the read: whatever was written before or during it shows.
        let now = self.file.metadata().map_err(|error| SourceError::io(&self.path, error))?;
        if now.len() < self.stamp.bytes {
            return Err(SourceError::Shrunk { was: self.stamp.bytes, now: now.len() });
        }
        if now.nlink() == 0 {
            return Err(SourceError::Vanished);
        }
        if Stamp::of(&now) != self.stamp {
            return Err(SourceError::Changed);
        }
        read.map_err(|error| SourceError::io(&self.path, error))
    }
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "csv" => "text/csv",
        "json" | "geojson" => "application/json",
        "ndjson" | "jsonl" => "application/x-ndjson",
        "parquet" => "application/vnd.apache.parquet",
        "ttl" => "text/turtle",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}
