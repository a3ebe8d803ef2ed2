//! The Eclipse DSP kit: fetched by its Maven coordinates, run by JUnit's own console, judged by
//! the list of tests that passed, since the kit's exit code is green when nothing ran.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::tools::{between, build, cache, environment, succeeds};

mod seed;

use seed::{KIT, NEGOTIATIONS_PROVIDED, OWN, TRANSFERS, offer_id, subject};

/// How long the whole kit may take; it takes about a minute.
const KIT_TIME_MAX: Duration = Duration::from_secs(600);
/// How long the connector may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// Seconds that the kit waits for one of our messages.
const KIT_WAIT_SECONDS: u32 = 15;

const NEGOTIATIONS_CONSUMED: [&str; 16] = [
    "01_01", "01_02", "01_03", "01_04", "02_01", "02_02", "02_03", "02_04", "02_05", "02_06", "03_01", "03_02",
    "03_03", "03_04", "03_05", "03_06",
];

/// How to run it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often in a row.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Writes the result into the repository.
    #[arg(long)]
    publish: bool,
    /// One test alone, as `package.Class#method`; the list is then not compared.
    #[arg(long, value_name = "METHOD")]
    only: Option<String>,
    /// The program to test. Default: built now.
    #[arg(long, value_name = "FILE")]
    kontor: Option<PathBuf>,
}

/// Whether every run passed the tests of the list, no more and no fewer.
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/dsp");
    let Some(kit) = Kit::fetch(&suite).await? else { return Ok(environment("CI").is_none()) };
    let program = match &options.kontor {
        Some(program) => program.clone(),
        None => build().await?,
    };
    let listed: BTreeSet<String> =
        fs::read_to_string(suite.join("passed.txt"))?.lines().map(|line| line.trim().to_owned()).collect();
    let mut green = 0;
    let mut times = Vec::new();
    for number in 1..=options.runs {
        let folder = tempfile::Builder::new().prefix("kontor-dsp-").tempdir()?;
        let began = Instant::now();
        let report = one_run(&kit, &suite, &program, folder.path(), options.only.as_deref()).await;
        let seconds = began.elapsed().as_secs_f64();
        times.push(seconds);
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                println!("what was written is kept in {}", folder.keep().display());
                return Err(error);
            }
        };
        let passed: BTreeSet<String> = report.passed.iter().cloned().collect();
        let missing: Vec<&String> = listed.difference(&passed).collect();
        let fresh: Vec<&String> = passed.difference(&listed).collect();
        let whole = options.only.is_some() || (missing.is_empty() && fresh.is_empty());
        println!(
            "run {number} of {}: {} passed, {} failed, {} skipped by the kit, {seconds:.1} s",
            options.runs,
            passed.len(),
            report.failed.len(),
            report.skipped
        );
        for (id, why) in &report.failed {
            println!("  failed   {id}: {why}");
        }
        if options.only.is_none() {
            for id in missing.iter().filter(|id| !report.failed.iter().any(|(failed, _)| failed == **id)) {
                println!("  missing  {id}: it is in {} and did not run", suite.join("passed.txt").display());
            }
            for id in fresh {
                println!("  new      {id}: it passed and is not in {}", suite.join("passed.txt").display());
            }
        }
        if whole && report.failed.is_empty() {
            green += 1;
        } else {
            println!("  what was written is kept in {}", folder.keep().display());
        }
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    let tests = if options.only.is_some() { "the one test".to_owned() } else { format!("{} tests", listed.len()) };
    println!("DSP kit {}: {green} of {} runs passed {tests}, slowest {slowest:.1} s", kit.version, options.runs);
    let all = green == options.runs;
    if all && options.publish && options.only.is_none() {
        let file = suite.join("RESULT.md");
        fs::write(&file, result_page(&kit, &listed, options.runs, slowest)?)?;
        println!("written: {}", file.display());
    }
    Ok(all)
}

fn result_page(kit: &Kit, passed: &BTreeSet<String>, runs: u32, slowest: f64) -> Result<String> {
    let date: String = jiff::Timestamp::now().to_string().chars().take(10).collect();
    let mut page = format!(
        "# Eclipse DSP conformance kit: {count} of {count} tests\n\n\
         Written by `cargo conformance dsp --publish`; the list is compared on every run of `.ci/run`.\n\n\
         - Kit: `org.eclipse.dataspacetck.dsp` {version} (Dataspace Protocol 2025-1, provider and consumer)\n\
         - Date: {date}\n- Runs in a row: {runs}, slowest {slowest:.0} s\n\n",
        count = passed.len(),
        version = kit.version,
    );
    for id in passed {
        writeln!(page, "- `{id}`")?;
    }
    Ok(page)
}

/// The kit's class path.
struct Kit {
    libraries: PathBuf,
    version: String,
}

impl Kit {
    /// `None` where Java or Maven is missing.
    async fn fetch(suite: &Path) -> Result<Option<Self>> {
        let pom = suite.join("pom.xml");
        let text = fs::read_to_string(&pom)?;
        let version = between(&text, "<kit.version>", "</kit.version>").context("the pom names no kit.version")?;
        let libraries = cache()?.join("dsp-tck").join(version);
        let complete = libraries.join("complete");
        let fetched = complete.is_file();
        let mut missing = Vec::new();
        if !succeeds("java", "-version").await {
            missing.push("java");
        }
        if !fetched && !succeeds("mvn", "-version").await {
            missing.push("mvn");
        }
        if !missing.is_empty() {
            println!(
                "skipped: the kit needs {} (a JDK of 17 or later, and Maven 3): `apt-get install default-jdk-headless maven`",
                missing.join(" and ")
            );
            if environment("CI").is_some() {
                println!("this is CI (the variable `CI` is set), where nothing is skipped");
            }
            return Ok(None);
        }
        if !fetched {
            println!("fetching the kit {version} into {}", libraries.display());
            fs::create_dir_all(&libraries)?;
            let status = Command::new("mvn")
                .args(["--quiet", "--batch-mode", "--file"])
                .arg(&pom)
                .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", libraries.display()))
                .status()
                .await?;
            ensure!(status.success(), "Maven could not fetch the kit: {status}");
            // Empty redirects of OkHttp 5 that would hide the classes.
            for redirect in ["okhttp-5.3.0.jar", "okio-3.16.2.jar"] {
                let _ = fs::remove_file(libraries.join(redirect));
            }
            fs::write(&complete, "")?;
        }
        Ok(Some(Self { libraries, version: version.to_owned() }))
    }
}

/// What the kit reports.
struct Report {
    passed: Vec<String>,
    failed: Vec<(String, String)>,
    skipped: usize,
}

async fn one_run(kit: &Kit, suite: &Path, program: &Path, folder: &Path, only: Option<&str>) -> Result<Report> {
    let (mut connector, addresses) = start(suite, program, folder).await?;
    let outcome = play(kit, &addresses, folder, only).await;
    let early = connector.try_wait()?;
    connector.kill().await?;
    if let Some(status) = early {
        bail!("the connector ended during the run ({status}): {}", folder.join("kontor.log").display());
    }
    outcome
}

/// Starts the connector with the kit's data in it, and waits for its addresses.
async fn start(suite: &Path, program: &Path, folder: &Path) -> Result<(Child, Value)> {
    seed::prepare(folder, &suite.join("rules.toml"))?;
    let log = fs::File::create(folder.join("kontor.log"))?;
    let mut connector = Command::new(program)
        .args(["serve", "--config"])
        .arg(folder.join("settings.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start `{}`", program.display()))?;
    let began = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(folder.join("state/addresses.json")) {
            return Ok((connector, serde_json::from_str(&text)?));
        }
        if let Some(status) = connector.try_wait()? {
            bail!("the connector did not start ({status}): {}", fs::read_to_string(folder.join("kontor.log"))?);
        }
        ensure!(began.elapsed() < START_TIME_MAX, "the connector does not listen after {START_TIME_MAX:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn properties(addresses: &Value, callback_port: u16) -> Result<String> {
    let address = |name: &str| addresses[name].as_str().with_context(|| format!("the connector names no `{name}`"));
    let protocol = address("protocol")?;
    let base = protocol.strip_suffix("/2025-1").unwrap_or(protocol);
    let initiation = address("initiation")?;
    let mut text = format!(
        "dataspacetck.launcher=org.eclipse.dataspacetck.dsp.system.DspSystemLauncher\n\
         dataspacetck.callback.address=http://127.0.0.1:{callback_port}\n\
         dataspacetck.host=127.0.0.1\n\
         dataspacetck.port={callback_port}\n\
         dataspacetck.dsp.local.connector=false\n\
         dataspacetck.dsp.connector.agent.id={OWN}\n\
         dataspacetck.dsp.connector.http.url={protocol}\n\
         dataspacetck.dsp.connector.http.base.url={base}\n\
         dataspacetck.dsp.connector.http.headers.authorization={{\"clientId\":\"{KIT}\"}}\n\
         dataspacetck.dsp.connector.negotiation.initiate.url={initiation}/negotiations/requests\n\
         dataspacetck.dsp.connector.transfer.initiate.url={initiation}/transfers/requests\n\
         dataspacetck.dsp.default.wait={KIT_WAIT_SECONDS}\n"
    );
    for test in ["01_01", "01_02", "01_03"] {
        writeln!(text, "CAT_{test}_DATASETID={}", subject("CAT", test))?;
    }
    for test in NEGOTIATIONS_PROVIDED {
        let dataset = subject("ACN", test);
        writeln!(text, "CN_{test}_DATASETID={dataset}\nCN_{test}_OFFERID={}", offer_id(&dataset))?;
    }
    for test in NEGOTIATIONS_CONSUMED {
        writeln!(text, "CN_C_{test}_DATASETID={}", subject("ACNC", test))?;
    }
    for test in TRANSFERS {
        for (key, prefix) in [("TP", "ATP"), ("TP_C", "ATPC")] {
            writeln!(text, "{key}_{test}_AGREEMENTID={}\n{key}_{test}_FORMAT=HttpData-PULL", subject(prefix, test))?;
        }
    }
    Ok(text)
}

async fn play(kit: &Kit, addresses: &Value, folder: &Path, only: Option<&str>) -> Result<Report> {
    // The kit cannot take a port by itself; this one was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let conf = folder.join("conf");
    fs::create_dir_all(&conf)?;
    fs::write(conf.join("kit.properties"), properties(addresses, port)?)?;
    let output = fs::File::create(folder.join("kit.log"))?;
    let mut java = Command::new("java");
    java.arg("-cp")
        .arg(format!("{}/*:{}", kit.libraries.display(), conf.display()))
        .args(["org.junit.platform.console.ConsoleLauncher", "execute"])
        .args(["--disable-banner", "--disable-ansi-colors", "--details=tree", "--include-classname=.*Test$"]);
    match only {
        Some(method) => java.args(["--select-method", method]),
        None => java.args(["--select-package", "org.eclipse.dataspacetck.dsp.verification"]),
    };
    let mut java = java
        .args(["--config-resource", "kit.properties", "--reports-dir"])
        .arg(folder.join("reports"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start java")?;
    let status = tokio::time::timeout(KIT_TIME_MAX, java.wait())
        .await
        .with_context(|| format!("the kit has not ended after {KIT_TIME_MAX:?}"))??;
    let report = fs::read_to_string(folder.join("reports/TEST-junit-jupiter.xml"))
        .with_context(|| format!("the kit ended ({status}) without a report"))?;
    parse(&report)
}

/// JUnit's report: the kit's words are inside of CDATA, so its own marks are found by their text.
fn parse(report: &str) -> Result<Report> {
    let mut found = Report { passed: Vec::new(), failed: Vec::new(), skipped: 0 };
    for case in report.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or(case);
        let method = between(case, "name=\"", "(").context("a test has no name")?;
        let class = between(case, "classname=\"", "\"").context("a test has no class")?;
        let id = format!("{}.{method}", class.rsplit('.').next().unwrap_or(class));
        let fault = ["<failure", "<error"].iter().find_map(|mark| case.find(mark).map(|at| &case[at..]));
        if let Some(fault) = fault {
            let why = between(fault, "message=\"", "\"").unwrap_or("no message");
            found.failed.push((id, why.chars().take(300).collect()));
        } else if case.contains("<skipped") {
            found.skipped += 1;
        } else {
            found.passed.push(id);
        }
    }
    Ok(found)
}
