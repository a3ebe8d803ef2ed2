//! The control plane: facts in, one step, one commit, effects out.
//!
//! * [`advance`]: load → step → commit state, outbox and audit in one transaction; the one place
//!   that writes protocol state.
//! * [`automation`]: what is decided without a person, looked up by role and state.
//! * [`negotiation`], [`transfer`], [`catalog`]: gather facts for messages and commands.
//! * [`capability`]: what we enforce, as a document for peers.
//! * [`duty`]: the log, notices and deletions that agreements ask for.
//! * [`fact`]: what policies ask about, and deciding again when it changes.
//! * [`dispatch`]: drains the outbox, woken at once; [`deadline`]: due wake-ups.
//! * [`reading`]: which flows are one use of an agreement, and which are another.
//! * [`publish`]: the self-description, sent to the brokers.

pub mod advance;
pub mod automation;
pub mod capability;
pub mod catalog;
pub mod deadline;
pub mod dispatch;
pub mod duty;
pub mod error;
pub mod fact;
pub mod negotiation;
pub mod publish;
pub mod quantity;
pub mod reading;
pub mod transfer;
pub mod wire_format;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use kontor_core::id::{MessageId, ParticipantId, ProcessId};
use kontor_core::policy::Capabilities;
use kontor_wire::client::PeerClient;
use kontor_wire::egress::EgressFilter;
use secrecy::SecretString;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::automation::Rules;
use self::dispatch::Outbox;
use crate::data::DataLimits;
use crate::data::gate::Grants;
use crate::settings::Delivery;
use crate::store::Store;

/// What the control plane is made of. Built once, by the composition root.
pub struct Parts {
    /// Who we are.
    pub participant: ParticipantId,
    /// A name for people.
    pub title: String,
    /// How peers reach us: the base of the protocol port, without a trailing slash.
    pub public_url: Url,
    /// Where state is kept.
    pub store: Store,
    /// How peers are reached.
    pub client: PeerClient,
    /// Which addresses peers may make us call.
    pub egress: EgressFilter,
    /// What is decided without a person.
    pub rules: Rules,
    /// What this connector can hold to, as the settings have it.
    pub capabilities: Capabilities,
    /// What duties are carried out with.
    pub duties: duty::Executors,
    /// Consumers that say nothing of what they enforce, and are trusted to.
    pub consumers_on_trust: Vec<ParticipantId>,
    /// How hard a message is tried.
    pub delivery: Delivery,
    /// The provider's open grants.
    pub grants: Arc<Grants>,
    /// Limits of the pulls that we make.
    pub data_limits: DataLimits,
    /// What the pseudonyms of every agreement are made from, the same after every restart.
    pub pseudonym_secret: SecretString,
    /// The folder that received data is written to.
    pub sink_root: PathBuf,
    /// Folders that datasets may name files in.
    pub source_roots: Vec<PathBuf>,
    /// Brokers that we publish to.
    pub brokers: Vec<publish::BrokerAddress>,
    /// How many processes one counterparty may have open.
    pub open_processes_max: usize,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// How long an answer about a process waits for the receipt of our own message to whoever asks.
pub const RECEIPT_WAIT: Duration = Duration::from_secs(1);

/// The control plane.
pub struct Control {
    pub(crate) parts: Parts,
    pub(crate) outbox: Outbox,
    pub(crate) wake: Notify,
    pub(crate) duty_wake: Notify,
    pub(crate) published: Notify,
    pub(crate) tasks: TaskTracker,
    pub(crate) pulls: Mutex<HashMap<ProcessId, watch::Sender<Option<String>>>>,
    pub(crate) readings: Mutex<HashMap<ProcessId, reading::Readings>>,
    /// Transfers that are to be decided again in a moment.
    pub(crate) undecided: Mutex<HashSet<ProcessId>>,
    /// Transfers that were suspended and started again for a renewed certificate, and brought nothing since.
    pub(crate) rebound: Mutex<HashSet<ProcessId>>,
    pub(crate) interests: Mutex<HashMap<ProcessId, fact::Interest>>,
    /// Counts up with every change of a fact.
    pub(crate) facts_epoch: AtomicU64,
    pub(crate) publications: Mutex<HashMap<String, publish::PublicationState>>,
    /// Whether an operator has taken the self-description back from a broker, until the next start. Held while a request
    /// to the broker is on its way, so that publishing and withdrawing do not overtake each other.
    pub(crate) withheld: HashMap<ParticipantId, tokio::sync::Mutex<bool>>,
    statement: OnceLock<capability::Statement>,
    changes: broadcast::Sender<ProcessId>,
    this: OnceLock<std::sync::Weak<Control>>,
}

impl Control {
    /// Puts the parts together; nothing runs before [`Control::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let control = Arc::new(Self {
            outbox: Outbox::new(parts.delivery.in_flight_max),
            withheld: parts.brokers.iter().map(|broker| (broker.participant.clone(), Default::default())).collect(),
            parts,
            wake: Notify::new(),
            duty_wake: Notify::new(),
            published: Notify::new(),
            tasks: TaskTracker::new(),
            pulls: Mutex::default(),
            readings: Mutex::default(),
            undecided: Mutex::default(),
            rebound: Mutex::default(),
            interests: Mutex::default(),
            facts_epoch: AtomicU64::new(0),
            publications: Mutex::default(),
            statement: OnceLock::new(),
            changes: broadcast::channel(1024).0,
            this: OnceLock::new(),
        });
        let _ = control.this.set(Arc::downgrade(&control));
        control
    }

    /// Who we are.
    #[must_use]
    pub fn participant(&self) -> &ParticipantId {
        &self.parts.participant
    }

    /// Where state is kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    /// The base of the protocol: what peers append message paths to, without a trailing slash.
    #[must_use]
    pub fn protocol_base(&self) -> String {
        format!("{}/dsp/2025-1", self.public_base())
    }

    /// The base of the protocol port, without a trailing slash.
    #[must_use]
    pub fn public_base(&self) -> &str {
        self.parts.public_url.as_str().trim_end_matches('/')
    }

    /// Names of processes that changed, as they change; slow readers miss some.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ProcessId> {
        self.changes.subscribe()
    }

    pub(crate) fn changed(&self, process: &ProcessId) {
        let _ = self.changes.send(process.clone());
    }

    /// Looks at a process until `open` says that nothing of ours is on its way, for at most
    /// [`RECEIPT_WAIT`]. A peer may ask for the state between taking our message and our reading
    /// of its receipt: it would be told the state before the message that it already has.
    pub(crate) async fn look_when_settled<T, F, Fut>(
        &self,
        process: &str,
        look: F,
        open: impl Fn(&T) -> bool,
    ) -> Result<T, error::ControlError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, error::ControlError>>,
    {
        let mut changes = self.changes();
        let deadline = tokio::time::sleep(RECEIPT_WAIT);
        tokio::pin!(deadline);
        loop {
            let found = look().await?;
            if !open(&found) {
                return Ok(found);
            }
            loop {
                tokio::select! {
                    () = &mut deadline => return Ok(found),
                    changed = changes.recv() => match changed {
                        Ok(changed) if changed.as_str() != process => {}
                        _ => break,
                    },
                }
            }
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub(crate) fn fresh_message_id(&self) -> MessageId {
        MessageId::parse(fresh_urn()).unwrap_or_else(|_| unreachable_id())
    }

    pub(crate) fn fresh_process_id(&self) -> ProcessId {
        ProcessId::parse(fresh_urn()).unwrap_or_else(|_| unreachable_id())
    }

    /// Runs a task that ends with the connector.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.parts.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// A handle to ourselves for tasks.
    pub(crate) fn arc(&self) -> Option<Arc<Self>> {
        self.this.get().and_then(std::sync::Weak::upgrade)
    }

    /// Takes up what a previous run left: waiting messages, open grants, running pulls, due
    /// times; then keeps going until shutdown.
    ///
    /// # Errors
    /// [`error::ControlError`] when the store cannot be read.
    pub async fn start(self: &Arc<Self>) -> Result<(), error::ControlError> {
        self.resume_outbox().await?;
        self.resume_negotiations().await?;
        self.resume_transfers().await?;
        self.spawn(deadline::run(self.clone()));
        self.spawn(duty::run(self.clone()));
        for broker in self.parts.brokers.clone() {
            self.spawn(publish::run(self.clone(), broker));
        }
        self.leave_brokers().await?;
        Ok(())
    }

    /// Waits until all tasks have ended after shutdown.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A fresh `urn:uuid:…`, of version 7: what is made later sorts later, so that the store's indexes grow at one end.
#[must_use]
pub fn fresh_urn() -> String {
    format!("urn:uuid:{}", uuid::Uuid::now_v7())
}

fn unreachable_id<T>() -> T {
    unreachable!("a fresh URN is a valid identifier")
}
