//! A live stranger: a real Eclipse EDC beside the built program, each as provider and as consumer of the other. What both
//! say through their management interfaces is compared; the checks that passed are compared with a list.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::process::Command;

use crate::tools::{between, build, cache, environment, succeeds};

mod checks;
mod space;

use space::Space;

/// How to run it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often in a row.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Writes the result into the repository.
    #[arg(long)]
    publish: bool,
    /// Keeps settings, logs and stores.
    #[arg(long)]
    keep: bool,
    /// The program to test. Default: built now.
    #[arg(long, value_name = "FILE")]
    kontor: Option<PathBuf>,
}

/// What one check found.
pub(crate) struct Checked {
    pub(crate) id: &'static str,
    /// What is worth telling, or what went wrong.
    pub(crate) outcome: Result<String>,
}

/// Whether every run passed the checks of the list, no more and no fewer.
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/edc");
    let Some(edc) = Edc::fetch(&suite).await? else { return Ok(environment("CI").is_none()) };
    let program = match &options.kontor {
        Some(program) => program.clone(),
        None => build().await?,
    };
    let listed: BTreeSet<String> =
        fs::read_to_string(suite.join("passed.txt"))?.lines().map(|line| line.trim().to_owned()).collect();
    let (mut green, mut slowest, mut last) = (0, 0.0_f64, Vec::new());
    for number in 1..=options.runs {
        let folder = tempfile::Builder::new().prefix("kontor-edc-").tempdir()?;
        let began = Instant::now();
        let found = match one_run(&edc, &suite, &program, folder.path()).await {
            Ok(found) => found,
            Err(error) => {
                println!("what was written is kept in {}", folder.keep().display());
                return Err(error);
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        slowest = slowest.max(seconds);
        let passed: BTreeSet<String> =
            found.iter().filter(|check| check.outcome.is_ok()).map(|check| check.id.to_owned()).collect();
        println!("run {number} of {}: {} of {} checks passed, {seconds:.1} s", options.runs, passed.len(), found.len());
        for id in listed.difference(&passed).filter(|id| !found.iter().any(|check| check.id == **id)) {
            println!("  missing  {id}: it is in {} and did not run", suite.join("passed.txt").display());
        }
        for id in passed.difference(&listed) {
            println!("  new      {id}: it passed and is not in {}", suite.join("passed.txt").display());
        }
        let whole = passed == listed && passed.len() == found.len();
        green += u32::from(whole);
        if !whole || options.keep {
            println!("  what was written is kept in {}", folder.keep().display());
        }
        last = found;
    }
    let all = green == options.runs;
    println!(
        "EDC {}: {green} of {} runs passed {} checks, slowest {slowest:.1} s",
        edc.version,
        options.runs,
        listed.len()
    );
    if all && options.publish {
        let file = suite.join("RESULT.md");
        fs::write(&file, result_page(&edc, &last, options.runs, slowest)?)?;
        println!("written: {}", file.display());
    }
    Ok(all)
}

async fn one_run(edc: &Edc, suite: &Path, program: &Path, folder: &Path) -> Result<Vec<Checked>> {
    let mut space = Space::start(edc, suite, program, folder).await?;
    let found = checks::all(&space).await;
    space.stop().await?;
    Ok(found)
}

fn result_page(edc: &Edc, found: &[Checked], runs: u32, slowest: f64) -> Result<String> {
    let date: String = jiff::Timestamp::now().to_string().chars().take(10).collect();
    let mut page = format!(
        "# Kontor and a real Eclipse EDC: {count} of {count} checks\n\n\
         Written by `cargo conformance edc --publish`; the checks are compared with `passed.txt` on every run.\n\n\
         - Peer: Eclipse EDC {version}, control plane and data plane, in memory, mock identity, 10 ms polls\n\
         - Protocol: Dataspace Protocol 2025-1 over plain HTTP on loopback, Kontor in its profile `insecure`\n\
         - Date: {date}\n- Runs in a row: {runs}, slowest {slowest:.0} s\n\n\
         | check | what was found |\n|---|---|\n",
        count = found.len(),
        version = edc.version,
    );
    for Checked { id, outcome } in found {
        writeln!(page, "| `{id}` | {} |", outcome.as_deref().unwrap_or("failed"))?;
    }
    page.push_str(
        "\n## How far transfers go\n\n\
         - EDC pulls from Kontor: token, bytes, suspension, resumption, termination and completion. After a resumption of its own\n  \
         EDC waits in RESUMED for a start message of the provider, which Kontor does not send: the token stays good.\n\
         - Kontor pulls from EDC: EDC's control plane, tokens and data address are its own. Since 0.15 EDC leaves the public\n  \
         endpoint of its data plane to its users; the suite brings one of the smallest kind (`PublicEndpoint.java`), which\n  \
         takes `Authorization: Bearer <token>`. Endpoints of EDC up to 0.14 took the bare token, and were not tried.\n\
         - Push (`HttpData-PUSH`) is not built in Kontor; both sides are told so and end.\n\n\
         ## What EDC loses\n\n\
         Polling every 10 ms, EDC now and then sends one move twice under two message identifiers, or forgets a state that a\n\
         message of ours led to. Kontor takes the second for the repetition that it is. Where EDC forgot a state it ends\n\
         what it does not know any more; such negotiations are counted above as lost by EDC.\n",
    );
    Ok(page)
}

/// EDC's class path, with the suite's endpoint compiled.
pub(crate) struct Edc {
    pub(crate) libraries: PathBuf,
    pub(crate) version: String,
}

impl Edc {
    /// `None` where Java or Maven is missing.
    async fn fetch(suite: &Path) -> Result<Option<Self>> {
        let pom = suite.join("pom.xml");
        let text = fs::read_to_string(&pom)?;
        let version = between(&text, "<edc.version>", "</edc.version>").context("the pom names no edc.version")?;
        let libraries = cache()?.join("edc").join(version);
        let complete = libraries.join("complete");
        let fetched = complete.is_file();
        let mut missing = Vec::new();
        for program in ["java", "javac"] {
            if !succeeds(program, "-version").await {
                missing.push(program);
            }
        }
        if !fetched && !succeeds("mvn", "-version").await {
            missing.push("mvn");
        }
        if !missing.is_empty() {
            println!(
                "skipped: EDC needs {} (a JDK of 17 or later, and Maven 3): `apt-get install default-jdk-headless maven`",
                missing.join(", ")
            );
            if environment("CI").is_some() {
                println!("this is CI (the variable `CI` is set), where nothing is skipped");
            }
            return Ok(None);
        }
        if !fetched {
            println!("fetching EDC {version} into {}", libraries.display());
            fs::create_dir_all(&libraries)?;
            let status = Command::new("mvn")
                .args(["--quiet", "--batch-mode", "--file"])
                .arg(&pom)
                .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", libraries.display()))
                .status()
                .await?;
            ensure!(status.success(), "Maven could not fetch EDC: {status}");
            for entry in fs::read_dir(&libraries)? {
                let path = entry?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                // Empty redirects of OkHttp 5 that would hide the classes.
                if name.starts_with("okhttp-5.") || name.starts_with("okio-3.") {
                    fs::remove_file(&path)?;
                }
            }
            fs::write(&complete, "")?;
        }
        Ok(Some(Self { libraries, version: version.to_owned() }))
    }

    /// Compiles the suite's endpoint into a folder; returns the class path.
    pub(crate) async fn class_path(&self, suite: &Path, folder: &Path) -> Result<String> {
        let classes = folder.join("classes");
        let services = classes.join("META-INF/services");
        fs::create_dir_all(&services)?;
        let service = "org.eclipse.edc.spi.system.ServiceExtension";
        fs::write(services.join(service), "kontor.conformance.PublicEndpoint\n")?;
        let libraries = format!("{}/*", self.libraries.display());
        let status = Command::new("javac")
            .args(["-proc:none", "-cp", &libraries, "-d"])
            .args([classes.as_path(), suite.join("PublicEndpoint.java").as_path()])
            .stdin(Stdio::null())
            .status()
            .await?;
        ensure!(status.success(), "PublicEndpoint.java does not compile against EDC {}: {status}", self.version);
        Ok(format!("{libraries}:{}", classes.display()))
    }
}
