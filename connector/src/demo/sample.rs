//! The demo's data: generated from a fixed seed and said to be so, or the user's own.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What the provider offers first.
pub(super) struct Table {
    /// The folder that the provider may serve from.
    pub(super) root: PathBuf,
    pub(super) source: Value,
    pub(super) title: String,
    pub(super) words: String,
    pub(super) media_type: &'static str,
    pub(super) path: PathBuf,
    directory: bool,
}

impl Table {
    pub(super) fn sink(&self, name: &str) -> Value {
        json!({ "type": if self.directory { "directory" } else { "file" }, "path": name })
    }
}

const ROWS: u32 = 20_000;
const STREAM_BYTES: usize = 256 * 1024 * 1024;

/// Prepares the data: the user's own where it is given, the generated table in a folder otherwise.
pub(super) fn prepare(folder: &Path, own: Option<&Path>) -> Result<Table> {
    let Some(own) = own else {
        let path = folder.join("trades.csv");
        std::fs::write(&path, trades())?;
        return Ok(Table {
            root: folder.to_path_buf(),
            source: json!({ "type": "file", "path": "trades.csv" }),
            title: "Trades of a Hanse town".to_owned(),
            words: format!("trades.csv, {ROWS} rows, made up by a generator with a fixed seed"),
            media_type: "text/csv",
            path,
            directory: false,
        });
    };
    let path = own.canonicalize().with_context(|| format!("`{}` is not there (--data)", own.display()))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("`{}` cannot be offered as a whole (--data)", path.display());
    };
    let directory = path.is_dir();
    let name = name.to_string_lossy().into_owned();
    Ok(Table {
        root: parent.to_path_buf(),
        source: json!({ "type": if directory { "directory" } else { "file" }, "path": name }),
        title: name.clone(),
        words: format!("your own {} `{name}`", if directory { "folder" } else { "file" }),
        media_type: "application/octet-stream",
        path: path.clone(),
        directory,
    })
}

/// A multiplicative congruential generator: the same rows on every machine.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.next()).unwrap_or(0) % words.len().max(1);
        words.get(index).copied().unwrap_or_default()
    }
}

fn trades() -> String {
    use std::fmt::Write as _;
    let mut seeded = Seeded(1356);
    let mut text = String::from("trade,from,to,good,barrels,marks\n");
    let towns = ["Lübeck", "Bergen", "Novgorod", "Brugge", "London", "Riga", "Danzig", "Visby"];
    let goods = ["stockfish", "salt", "wax", "furs", "cloth", "herring", "grain", "amber"];
    for number in 1..=ROWS {
        let (from, to, good) = (seeded.of(&towns), seeded.of(&towns), seeded.of(&goods));
        let _ =
            writeln!(text, "{number},{from},{to},{good},{},{}", seeded.next() % 400 + 1, seeded.next() % 9000 + 100);
    }
    text
}

/// Writes the stream.
pub(super) fn stream(path: &Path) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(
        1 << 20,
        std::fs::File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?,
    );
    let mut seeded = Seeded(1669);
    let block: Vec<u8> =
        (0..(1 << 20) / 8).flat_map(|_| seeded.next().wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    for _ in 0..STREAM_BYTES / block.len() {
        out.write_all(&block)?;
    }
    out.flush()?;
    Ok(())
}

/// BLAKE3 of a file, or of all files of a folder with their names.
pub(super) fn digest_of(path: &Path) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    feed(path, Path::new(""), &mut hash).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(hash.finalize().to_hex().to_string())
}

fn feed(path: &Path, name: &Path, hash: &mut blake3::Hasher) -> std::io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            feed(&entry.path(), &name.join(entry.file_name()), hash)?;
        }
        return Ok(());
    }
    if !name.as_os_str().is_empty() {
        hash.update(name.to_string_lossy().as_bytes());
    }
    let mut file = std::fs::File::open(path)?;
    std::io::copy(&mut file, hash).map(|_| ())
}
