//! Duties: the log entries, notices and deletions that agreements ask for.
//!
//! A duty is kept in the commit of what causes it, and carried out here, again and again until it is done; a crash in
//! between loses nothing. One thing comes before the data: where an agreement asks for a log, the use is written down
//! and synced *before* the first byte, and while it cannot be written, no byte flows.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kontor_core::negotiation::Role;
use kontor_core::policy::{self, Deadline, DueDuty, DutyKind, Relation};
use kontor_core::refusal::{Fault, Refusal};
use kontor_core::transfer::Transfer;
use kontor_vocab::odrl::PolicyDocument;
use kontor_wire::http::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::Control;
use super::error::ControlError;
use super::transfer::Decided;
use super::wire_format::hex;
use crate::data::puller;
use crate::model::{
    AgreementRecord, AuditRecord, DutyProgress, DutyRecord, DutyTask, ReceivedRecord, ReceivedState, SinkSpec,
    SourceSpec,
};
use crate::store::{Batch, Page};

/// Longest sleep, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How many due duties are taken up at once.
const DUE_MAX: usize = 100;

/// Where log entries go.
#[derive(Debug, Clone)]
pub enum LogSink {
    /// A file, one JSON object a line.
    File(PathBuf),
    /// An address that takes one JSON object per POST.
    Http(Url),
}

/// What duties are carried out with, as the settings name it.
#[derive(Debug)]
pub struct Executors {
    /// Where required log entries go; `None`: policies that ask for a log are refused.
    pub log: Option<LogSink>,
    /// The parties that can be informed, with their addresses.
    pub inform: BTreeMap<String, Url>,
    /// Reaches the addresses above, which our own operator named; `None` where there are none, since it costs every
    /// start the reading of the system's certificate authorities.
    pub http: Option<Client>,
    /// One entry at a time, so that a file has whole lines.
    writing: Arc<std::sync::Mutex<()>>,
}

impl Executors {
    /// With a log and addresses of parties.
    #[must_use]
    pub fn new(log: Option<LogSink>, inform: BTreeMap<String, Url>, http: Option<Client>) -> Self {
        Self { log, inform, http, writing: Arc::default() }
    }

    /// Whether any of them is reached over HTTP.
    #[must_use]
    pub fn need_http(log: Option<&LogSink>, inform: &BTreeMap<String, Url>) -> bool {
        matches!(log, Some(LogSink::Http(_))) || !inform.is_empty()
    }

    /// Writes an entry, and answers when it is durable.
    async fn append(&self, entry: &Value) -> Result<(), String> {
        match &self.log {
            None => Err("no log is set up (setting `policy.log`)".to_owned()),
            Some(LogSink::Http(url)) => self.post(url, entry).await,
            Some(LogSink::File(path)) => {
                let (path, entry, writing) = (path.clone(), entry.clone(), Arc::clone(&self.writing));
                let written = tokio::task::spawn_blocking(move || {
                    let _one = writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    append_line(&path, &entry)
                        .map_err(|error| format!("the log `{}` cannot be written: {error}", path.display()))
                });
                written.await.unwrap_or_else(|_| Err("the writing of the log was aborted".to_owned()))
            }
        }
    }

    async fn post(&self, url: &Url, body: &Value) -> Result<(), String> {
        let Some(http) = &self.http else { return Err(format!("`{url}` cannot be reached: no client was set up")) };
        match http.post(url.clone()).json(body).send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("`{url}` answered {}", response.status())),
            Err(error) => Err(format!("`{url}` cannot be reached: {error}")),
        }
    }
}

/// Appends one line and syncs it; a line that could not be written whole is taken back.
fn append_line(path: &Path, entry: &Value) -> std::io::Result<()> {
    let fresh = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let before = file.seek(SeekFrom::End(0))?;
    let written = file.write_all(format!("{entry}\n").as_bytes()).and_then(|()| file.sync_data());
    if let Err(error) = written {
        let _ = file.set_len(before);
        return Err(error);
    }
    if fresh && let Some(folder) = path.parent() {
        std::fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()?;
    }
    Ok(())
}

/// What happened to data under an agreement, as log entries and notices tell it.
#[derive(Debug, Clone)]
pub(crate) struct Occasion<'a> {
    /// The agreement.
    pub(crate) record: &'a AgreementRecord,
    /// The transfer.
    pub(crate) transfer: &'a Transfer,
    /// `use.begins`, `use.ended` or `data.received`.
    pub(crate) event: &'static str,
    /// What tells this occasion from others of the transfer: a flow, or nothing.
    pub(crate) name: &'a str,
    /// When.
    pub(crate) at: Timestamp,
    /// What else there is to say.
    pub(crate) detail: Value,
}

impl Control {
    /// The entry of an occasion. The same occasion has the same `id`, so that a reader can tell a repetition.
    fn entry(&self, occasion: &Occasion<'_>) -> Value {
        let agreement = &occasion.record.agreement;
        json!({
            "id": duty_id(occasion, "entry", self.participant().as_str()),
            "at": occasion.at,
            "event": occasion.event,
            "participant": self.participant(),
            "role": occasion.record.role.as_str(),
            "agreement": agreement.id,
            "assigner": agreement.assigner,
            "assignee": agreement.assignee,
            "dataset": agreement.target,
            "transfer": occasion.transfer.id,
            "detail": occasion.detail,
        })
    }

    /// Writes the use down before it begins, where the policy asks for a log.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when it cannot be written: then no byte may flow.
    pub(crate) async fn log_before(&self, duties: &[DueDuty], occasion: &Occasion<'_>) -> Result<(), ControlError> {
        let Some(duty) = duties.iter().find(|duty| matches!(duty.kind, DutyKind::Log { .. })) else { return Ok(()) };
        self.parts.duties.append(&self.entry(occasion)).await.map_err(|problem| {
            tracing::error!(transfer.id = %occasion.transfer.id, problem, "a required log entry could not be written");
            Refusal::new(
                Fault::Unavailable,
                "policy.log-unavailable",
                format!("the log that the agreement requires is not available: {problem}"),
            )
            .at(duty.path.clone())
            .by("ODRL duty `log`: what is not logged is not permitted")
            .cure("the same request once the log can be written")
            .into()
        })
    }

    /// The durable duties that an occasion makes: notices, and a log entry where there was none before it.
    pub(crate) fn owed(&self, duties: &[DueDuty], occasion: &Occasion<'_>, log: bool, inform: bool) -> Vec<DutyRecord> {
        let mut owed = Vec::new();
        for duty in duties {
            match &duty.kind {
                DutyKind::Log { .. } if log => {
                    let task = DutyTask::Log { entry: self.entry(occasion) };
                    owed.push(record(occasion, duty, "log", task, occasion.at));
                }
                DutyKind::Inform { parties } if inform => {
                    let assigner = [occasion.record.agreement.assigner.to_string()];
                    let parties: &[String] = if parties.is_empty() { &assigner } else { parties };
                    // The provider tells everybody; a consumer those that its operator gave it an address of.
                    let told = |party: &&String| {
                        occasion.record.role == Role::Provider || self.parts.duties.inform.contains_key(*party)
                    };
                    for party in parties.iter().filter(told) {
                        let task = DutyTask::Inform { party: party.clone(), notice: self.entry(occasion) };
                        owed.push(record(occasion, duty, party, task, occasion.at));
                    }
                }
                _ => {}
            }
        }
        owed
    }

    /// The deletions that received data makes, each at its time.
    pub(crate) fn deletions(&self, duties: &[DueDuty], occasion: &Occasion<'_>) -> Vec<DutyRecord> {
        let deletion = |duty: &DueDuty| {
            let DutyKind::Delete { after } = &duty.kind else { return None };
            let due = match after {
                Deadline::Immediately => occasion.at,
                Deadline::At(at) => *at,
                // A time that no calendar reaches is one that is over before it.
                Deadline::Within(span) => span.after(occasion.at).unwrap_or(occasion.at),
            };
            Some(record(occasion, duty, "delete", DutyTask::Delete, due))
        };
        duties.iter().filter_map(deletion).collect()
    }

    /// Carries out one duty and keeps what became of it; whether that was kept.
    async fn carry_out(&self, mut duty: DutyRecord) -> bool {
        let outcome = match &duty.task {
            DutyTask::Log { entry } => self.parts.duties.append(entry).await.map(|()| ("logged".to_owned(), None)),
            DutyTask::Inform { party, notice } => self.inform(&duty, party, notice).await.map(|words| (words, None)),
            DutyTask::Delete => self.delete_received(&duty).await,
        };
        let now = self.now();
        let mut batch = Batch { now, ..Batch::default() };
        match outcome {
            Ok((detail, received)) => {
                tracing::info!(duty.id, agreement.id = %duty.agreement, detail, "a duty is fulfilled");
                batch.audit.push(audit(&duty, now, "duty.fulfilled", &detail));
                batch.received = received;
                duty.state = DutyProgress::Fulfilled { at: now, detail };
            }
            Err(problem) => {
                duty.attempts += 1;
                duty.last_error = Some(problem.clone());
                let age = now.duration_since(duty.due).as_secs();
                let give_up = i64::try_from(self.parts.delivery.give_up_seconds).unwrap_or(i64::MAX);
                // Only what others must take can fail for good: the log and the deletion are ours.
                if matches!(duty.task, DutyTask::Inform { .. }) && age >= give_up {
                    let detail = format!("given up after {} attempts: {problem}", duty.attempts);
                    tracing::error!(duty.id, agreement.id = %duty.agreement, detail, "a duty is violated");
                    batch.audit.push(audit(&duty, now, "duty.violated", &detail));
                    duty.state = DutyProgress::Violated { at: now, detail };
                } else {
                    let wait = self.backoff(duty.attempts);
                    tracing::warn!(duty.id, agreement.id = %duty.agreement, problem, "a duty waits for its next attempt");
                    let wait = jiff::SignedDuration::try_from(wait).unwrap_or_default();
                    duty.next_attempt = now.saturating_add(wait).unwrap_or(now);
                }
            }
        }
        batch.duties_tried.push(duty);
        match self.parts.store.commit(batch).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(%error, "what became of a duty was not kept; it is done again");
                false
            }
        }
    }

    async fn inform(&self, duty: &DutyRecord, party: &str, notice: &Value) -> Result<String, String> {
        match self.parts.duties.inform.get(party) {
            Some(url) => self.parts.duties.post(url, notice).await.map(|()| format!("`{party}` was informed")),
            None if party == self.participant().as_str() => {
                Ok("we are the informed party; this record informs us".to_owned())
            }
            // It takes part in the use: its connector asked for the data or let it through.
            None if party == duty.counterparty.as_str() => {
                Ok(format!("`{party}` takes part in the use by its own connector, and knows of it from there"))
            }
            None => Err(format!("there is no address for `{party}` (setting `policy.inform`)")),
        }
    }

    async fn delete_received(&self, duty: &DutyRecord) -> Result<(String, Option<ReceivedRecord>), String> {
        let Some(transfer) = &duty.transfer else { return Err("the duty names no transfer".to_owned()) };
        let found = self.parts.store.received(transfer).await.map_err(|error| error.to_string())?;
        let Some(mut received) = found else { return Err("nothing is known of what was received".to_owned()) };
        let ReceivedState::Kept { at, bytes, digest_blake3 } = received.state.clone() else {
            return match received.state {
                ReceivedState::Deleted { at, .. } => Ok((format!("it was deleted at {at}"), None)),
                ReceivedState::Receiving | ReceivedState::Kept { .. } => Err("it is still being received".to_owned()),
            };
        };
        let path = PathBuf::from(&received.path);
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        let was_there = removed
            .map_err(|_| "the deletion was aborted".to_owned())?
            .map_err(|error| format!("`{}` cannot be deleted: {error}", received.path))?;
        let detail = format!(
            "`{}` {}: {bytes} bytes, blake3 {digest_blake3}, received at {at}",
            received.path,
            if was_there { "deleted" } else { "was not there any more" }
        );
        received.state = ReceivedState::Deleted { at: self.now(), received: at, bytes, digest_blake3 };
        Ok((detail, Some(received)))
    }
}

/// What a consumer knows of the data of a transfer before it fetches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// It may come.
    Expected,
    /// It came, and was deleted as the agreement demands: it must not come again.
    Deleted,
}

impl Control {
    /// Gets ready for the data of a transfer: what its agreement demands of us is kept, and the use is logged where
    /// that is demanded, before the first byte is asked for.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the policy says no, or the log cannot be written.
    pub(crate) async fn receive(&self, transfer: &Transfer, sink: &SinkSpec) -> Result<Receipt, ControlError> {
        let known = self.parts.store.received(&transfer.id).await?;
        match known.as_ref().map(|known| &known.state) {
            Some(ReceivedState::Kept { .. }) => return Ok(Receipt::Expected),
            Some(ReceivedState::Deleted { .. }) => return Ok(Receipt::Deleted),
            Some(ReceivedState::Receiving) | None => {}
        }
        let now = self.now();
        let Decided { record, decision, .. } = self.decision(transfer, None, now).await??;
        let before = known.as_ref().map(|known| known.duties.clone()).unwrap_or_default();
        let fresh: Vec<DueDuty> =
            decision.duties.into_iter().filter(|duty| before.iter().all(|known| known.key != duty.key)).collect();
        if known.is_some() && fresh.is_empty() {
            return Ok(Receipt::Expected);
        }
        let (root, sink, id) = (self.parts.sink_root.clone(), sink.clone(), transfer.id.clone());
        let path = tokio::task::spawn_blocking(move || puller::place(&root, &sink, &id)).await;
        let path = path
            .unwrap_or_else(|_| Err("the sink's work was aborted".to_owned()))
            .map_err(|problem| Refusal::new(Fault::Malformed, "transfer.sink", problem).at("sink.path"))?;
        let begins = Occasion {
            record: &record,
            transfer,
            event: "use.begins",
            name: "",
            at: now,
            detail: json!({ "sink": path }),
        };
        self.log_before(&fresh, &begins).await?;
        // What once came with a use stays with what it brought.
        let duties = before.into_iter().chain(fresh).collect();
        let received = ReceivedRecord {
            transfer: transfer.id.clone(),
            agreement: record.agreement.id,
            counterparty: record.counterparty,
            path: path.display().to_string(),
            duties,
            state: ReceivedState::Receiving,
        };
        self.parts.store.commit(Batch { now, received: Some(received), ..Batch::default() }).await?;
        Ok(Receipt::Expected)
    }

    /// Keeps that the data of a transfer is here, with all that it obliges us to.
    ///
    /// # Errors
    /// [`ControlError::Store`] when it cannot be kept.
    pub(crate) async fn received(
        &self,
        transfer: &Transfer,
        bytes: u64,
        digest_blake3: String,
    ) -> Result<(), ControlError> {
        let Some(mut received) = self.parts.store.received(&transfer.id).await? else { return Ok(()) };
        if received.state != ReceivedState::Receiving {
            return Ok(());
        }
        let Some(agreement) = self.parts.store.agreement(&transfer.agreement).await? else { return Ok(()) };
        let now = self.now();
        let came = Occasion {
            record: &agreement.value,
            transfer,
            event: "data.received",
            name: "",
            at: now,
            detail: json!({ "path": received.path, "bytes": bytes, "digest_blake3": digest_blake3 }),
        };
        let mut duties = self.owed(&received.duties, &came, true, true);
        duties.extend(self.deletions(&received.duties, &came));
        let detail = format!("`{}`: {bytes} bytes, blake3 {digest_blake3}", received.path);
        received.state = ReceivedState::Kept { at: now, bytes, digest_blake3 };
        let line = AuditRecord {
            at: now,
            process: Some(transfer.id.clone()),
            counterparty: Some(transfer.counterparty.clone()),
            agreement: Some(transfer.agreement.clone()),
            event: "data.received".to_owned(),
            detail,
        };
        self.parts
            .store
            .commit(Batch { now, duties, received: Some(received), audit: vec![line], ..Batch::default() })
            .await?;
        self.duty_wake.notify_one();
        Ok(())
    }

    /// A transfer may end early although all its data is here: what is here obliges us all the same.
    pub(crate) async fn received_all_the_same(&self, transfer: &Transfer, sink: &SinkSpec) {
        let (root, sink, id) = (self.parts.sink_root.clone(), sink.clone(), transfer.id.clone());
        let arrived = tokio::task::spawn_blocking(move || puller::arrived(&root, &sink, &id)).await;
        if let Ok(Some((bytes, digest))) = arrived
            && let Err(error) = self.received(transfer, bytes, digest).await
        {
            tracing::error!(transfer.id = %transfer.id, %error, "what was received was not kept");
        }
    }

    /// Whether data may be handed on under a policy. What was received under an agreement with a next policy may be
    /// offered only under that policy or a narrower one.
    ///
    /// # Errors
    /// [`ControlError::Refused`] that names the policy it must lie within.
    pub(crate) async fn check_next_policy(
        &self,
        source: &SourceSpec,
        offered: &PolicyDocument,
    ) -> Result<(), ControlError> {
        for received in self.received_within(source).await? {
            for duty in &received.duties {
                let DutyKind::NextPolicy { policy: next } = &duty.kind else { continue };
                let refuse = |message: String| {
                    Refusal::new(Fault::Denied, "policy.next-policy", message)
                        .at("policy")
                        .by(format!("agreement `{}`, {}", received.agreement, duty.path))
                };
                let Some(known) = self.parts.store.policy(next).await? else {
                    return Err(refuse(format!(
                        "`{}` was received under the condition that it is offered on only under policy `{next}`, which \
                         is not known here",
                        received.path
                    ))
                    .cure(format!("`POST /policies` with the id `{next}` first"))
                    .into());
                };
                let (next_model, offered_model) = (
                    self.enforceable(&known.value.document, Role::Provider)?,
                    self.enforceable(offered, Role::Provider)?,
                );
                match policy::compare(&next_model, &offered_model) {
                    Relation::Equal | Relation::Narrower => {}
                    other => {
                        return Err(refuse(format!(
                            "`{}` was received under the condition that it is offered on only under policy `{next}`, \
                             and this one is not within it: {other:?}",
                            received.path
                        ))
                        .cure(format!("the terms of policy `{next}`, or narrower ones"))
                        .into());
                    }
                }
            }
        }
        Ok(())
    }

    /// What was received and is still here, as far as a source holds it.
    async fn received_within(&self, source: &SourceSpec) -> Result<Vec<ReceivedRecord>, ControlError> {
        let (SourceSpec::File { path } | SourceSpec::Directory { path }) = source;
        // A source that is not there holds nothing.
        let Ok(path) = tokio::fs::canonicalize(path).await else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for place in path.ancestors() {
            found.extend(self.parts.store.received_at(&place.display().to_string()).await?);
        }
        if matches!(source, SourceSpec::Directory { .. }) {
            let mut page = Page::largest();
            loop {
                let listing = self.parts.store.received_all(&page).await?;
                let below = |received: &ReceivedRecord| {
                    Path::new(&received.path).starts_with(&path) && Path::new(&received.path) != path
                };
                found.extend(listing.items.into_iter().map(|item| item.value).filter(below));
                match listing.next {
                    Some(next) => page.after = Some(next),
                    None => break,
                }
            }
        }
        found.retain(|received| !matches!(received.state, ReceivedState::Deleted { .. }));
        Ok(found)
    }
}

/// Removes a file or directory durably; whether it was there.
fn remove(path: &Path) -> std::io::Result<bool> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(true)
}

fn duty_id(occasion: &Occasion<'_>, key: &str, part: &str) -> String {
    let mut hash = Sha256::new();
    for text in
        [occasion.record.agreement.id.as_str(), occasion.transfer.id.as_str(), occasion.event, occasion.name, key, part]
    {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex(&hash.finalize())
}

fn record(occasion: &Occasion<'_>, duty: &DueDuty, part: &str, task: DutyTask, due: Timestamp) -> DutyRecord {
    DutyRecord {
        id: duty_id(occasion, duty.key.as_str(), part),
        agreement: occasion.record.agreement.id.clone(),
        transfer: Some(occasion.transfer.id.clone()),
        role: occasion.record.role,
        counterparty: occasion.record.counterparty.clone(),
        key: duty.key.to_string(),
        path: duty.path.clone(),
        task,
        state: DutyProgress::Pending,
        due,
        attempts: 0,
        next_attempt: due,
        last_error: None,
        created: occasion.at,
    }
}

fn audit(duty: &DutyRecord, at: Timestamp, event: &str, detail: &str) -> AuditRecord {
    AuditRecord {
        at,
        process: duty.transfer.clone(),
        counterparty: Some(duty.counterparty.clone()),
        agreement: Some(duty.agreement.clone()),
        event: event.to_owned(),
        detail: format!("{} ({}): {detail}", duty.task.as_str(), duty.path),
    }
}

/// Carries out what is due, runs until it is dropped.
pub async fn run(control: Arc<Control>) {
    let mut troubled = 0;
    loop {
        let sleep = match control.parts.store.next_duty().await {
            Ok(None) => SLEEP_MAX,
            Ok(Some(at)) => {
                Duration::try_from(at.duration_since(control.now())).unwrap_or(Duration::ZERO).min(SLEEP_MAX)
            }
            Err(error) => {
                tracing::error!(%error, "the next duty cannot be read");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = control.duty_wake.notified() => continue,
        }
        let due = match control.parts.store.duties_due(control.now(), DUE_MAX).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "due duties cannot be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // Side by side, so that a party that does not answer holds up no other duty.
        let kept = futures_util::future::join_all(due.into_iter().map(|duty| control.carry_out(duty))).await;
        troubled = if kept.iter().all(|kept| *kept) { 0 } else { troubled + 1 };
        if troubled > 0 {
            // What was done and could not be kept is done again: the more seldom, the longer that lasts.
            tokio::time::sleep(control.backoff(troubled)).await;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn with_log(path: &Path) -> Executors {
        Executors::new(Some(LogSink::File(path.to_owned())), BTreeMap::new(), None)
    }

    #[tokio::test]
    async fn entries_written_at_once_are_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usage.log");
        let executors = Arc::new(with_log(&path));
        let entry = |number: usize| json!({ "id": number, "text": "x".repeat(10_000) });
        let writing = (0..20).map(|number| {
            let executors = Arc::clone(&executors);
            tokio::spawn(async move { executors.append(&entry(number)).await })
        });
        for written in futures_util::future::join_all(writing).await {
            written.unwrap().unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut ids: Vec<u64> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let problem = with_log(dir.path()).append(&json!({})).await.unwrap_err();
        assert!(
            problem.contains("cannot be written") && problem.contains(&dir.path().display().to_string()),
            "{problem}"
        );
        let nowhere = Executors { log: None, ..with_log(dir.path()) };
        assert!(nowhere.append(&json!({})).await.unwrap_err().contains("policy.log"));
    }

    #[test]
    fn what_is_removed_is_gone_and_removing_it_again_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        for name in ["folder/a", "b"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        for name in ["folder", "b"] {
            assert!(remove(&dir.path().join(name)).unwrap());
            assert!(!dir.path().join(name).exists());
            assert!(!remove(&dir.path().join(name)).unwrap());
        }
    }
}
