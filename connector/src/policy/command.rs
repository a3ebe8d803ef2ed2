//! `kontor policy …`: reads the file, prints what the other parts of this room found.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::Capabilities;
use kontor_core::refusal::Refusal;
use serde::Serialize;

use super::check::check;
use super::explain::{Question, explain};
use super::template::{TEMPLATES, template};
use crate::cli::{Ask, Format, PolicyCommand};
use crate::settings::{self, Settings};

/// Longest policy that is read, in bytes: the most that a connector takes as a message by default.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Carries out a command; the exit code is 0 for yes and 1 for no.
///
/// # Errors
/// What keeps it from answering, in words: a file that is not there, a text that is no policy, a
/// value that is none.
pub fn run(command: PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Check { file, settings, format } => {
            let found = check(&read(&file)?, &capabilities(settings)?)
                .map_err(|refusal| said(&refusal))
                .with_context(|| name(&file))?;
            print(format, &found, &found.text(&name(&file)))?;
            Ok(exit(found.enforceable))
        }
        PolicyCommand::Explain { file, ask, settings, format } => {
            let question = question(ask)?;
            let told = explain(&read(&file)?, question.as_ref(), &capabilities(settings)?)
                .map_err(|refusal| said(&refusal))
                .with_context(|| name(&file))?;
            print(format, &told, &told.text())?;
            Ok(exit(told.decision.is_none_or(|decision| decision.allowed)))
        }
        PolicyCommand::Templates { name: None, set, settings, format } => {
            if !set.is_empty() {
                bail!("`--set` fills in one template; `kontor policy templates NAME --set …` would have passed");
            }
            let capabilities = capabilities(settings)?;
            let views: Vec<_> = TEMPLATES.iter().map(|template| template.view(&capabilities)).collect();
            print(format, &views, &list(&capabilities))?;
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Templates { name: Some(name), set, settings, format } => {
            let capabilities = capabilities(settings)?;
            let filled = template(&name)
                .and_then(|template| template.fill(&set, &capabilities))
                .map_err(|refusal| said(&refusal))?;
            match format {
                Format::Json => print(format, &filled, "")?,
                Format::Text => {
                    // The policy alone goes to the standard output, so that it can go to a file.
                    println!("{}", serde_json::to_string_pretty(&filled.policy)?);
                    for problem in &filled.refused {
                        eprintln!("note: this connector does not agree to it: {problem}");
                    }
                    for parameter in &filled.examples {
                        eprintln!(
                            "note: `{}` is the example; `--set {}=…` sets it ({})",
                            parameter.name, parameter.name, parameter.about
                        );
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the meant connector can hold to.
fn capabilities(settings: Option<PathBuf>) -> Result<Capabilities> {
    match settings {
        Some(file) => Ok(Settings::load(&file)?.capabilities()),
        None => Ok(settings::Policy::default().capabilities(Default::default())),
    }
}

fn exit(yes: bool) -> ExitCode {
    if yes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(format: Format, value: &impl Serialize, text: &str) -> Result<()> {
    match format {
        Format::Text => println!("{text}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

fn said(refusal: &Refusal) -> anyhow::Error {
    anyhow::anyhow!(refusal.sentences().join("; "))
}

/// What a file is called in what is printed.
fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn read(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).context("cannot read the standard input")?;
    } else {
        let open = std::fs::File::open(file).with_context(|| format!("cannot read the policy `{}`", file.display()))?;
        let mut open = open.take(FILE_BYTES_MAX + 1);
        open.read_to_end(&mut bytes).with_context(|| format!("cannot read the policy `{}`", file.display()))?;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{} has more than {FILE_BYTES_MAX} bytes, which is more than a policy may have", name(file));
    }
    String::from_utf8(bytes).with_context(|| format!("{} is no text in UTF-8", name(file)))
}

fn question(ask: Ask) -> Result<Option<Question>> {
    let Some(assignee) = ask.assignee else { return Ok(None) };
    let assignee = ParticipantId::parse_insecure(assignee).context("`--assignee`")?;
    let at = ask.at.unwrap_or_else(Timestamp::now);
    Ok(Some(Question {
        assignee,
        action: ask.action.unwrap_or_else(|| "use".to_owned()),
        target: ask.target,
        at,
        agreed_at: ask.agreed_at,
        uses: ask.uses,
        facts: ask.facts,
    }))
}

/// All templates with their parameters, for people.
fn list(capabilities: &Capabilities) -> String {
    let width = TEMPLATES.iter().map(|template| template.name.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for template in TEMPLATES {
        lines.push(format!("{:width$}  {}", template.name, template.about));
        if let Some(why) = template.refused(capabilities) {
            lines.push(format!("{:width$}    (refused here: {why})", ""));
        }
        for parameter in template.parameters {
            let (name, about, example) = (parameter.name, parameter.about, parameter.example);
            lines.push(format!("{:width$}    --set {name}={example}  ({about})", ""));
        }
    }
    lines.join("\n")
}
