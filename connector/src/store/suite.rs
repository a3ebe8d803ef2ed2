//! What every adapter must do, and what SQLite must do beyond it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use kontor_core::catalog::{Audience, PublishedOffer};
use kontor_core::negotiation::{Agreement, Ended, State};
use kontor_core::transfer::Begin;
use kontor_vocab::odrl::PolicyDocument;

use super::*;
use crate::model::{AgreementState, DutyTask, FlowOutcome, Machine, ReceivedState, SourceSpec, TokenBinding};

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod memory_adapter {
            use super::Store;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(Store::memory()).await;
            })*
        }

        mod sql_adapter {
            use super::Store;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(Store::open(dir.path()).unwrap()).await;
            })*
        }
    };
}

suite![
    what_is_committed_is_read_back,
    a_stale_version_is_a_conflict,
    a_second_process_for_the_same_peer_process_is_a_duplicate,
    a_failing_batch_leaves_nothing_of_any_part,
    parallel_uses_are_counted_exactly,
    the_same_use_counts_once,
    parallel_steps_of_one_process_let_one_through_each_time,
    failing_batches_do_not_disturb_their_neighbours,
    pages_are_newest_first_and_stable,
    filters_must_all_fit,
    a_foreign_cursor_is_refused,
    the_page_before_is_found_from_any_page,
    wakes_are_due_at_their_time_until_cleared,
    the_outbox_keeps_its_order,
    a_delivered_message_does_not_come_back_by_a_late_retry,
    an_agreement_only_moves_on,
    an_agreement_cannot_be_taken_over_by_its_identifier,
    a_token_finds_its_transfer,
    two_transfers_cannot_share_a_token,
    a_flow_report_is_replaced_by_its_identifier,
    withdrawing_a_dataset_withdraws_its_offers,
    an_offer_needs_its_dataset,
    datasets_are_replaced_only_as_expected,
    the_audit_log_counts_up_and_filters,
    publications_are_kept_by_broker,
    a_healthy_store_says_so,
    facts_are_kept_by_register_and_subject,
    a_register_is_replaced_as_a_whole,
    a_duty_is_made_once_and_settled_once,
    a_pending_duty_is_due_until_it_is_settled,
    what_was_received_only_moves_on,
    what_is_being_received_takes_up_duties_and_loses_none,
    parallel_flows_never_take_more_bytes_than_allowed,
    bytes_that_were_not_used_are_given_back,
];

// ── values ──

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pid(text: &str) -> ProcessId {
    ProcessId::parse(text).unwrap()
}

fn who(text: &str) -> ParticipantId {
    ParticipantId::parse(format!("urn:participant:{text}")).unwrap()
}

fn agreement_id(text: &str) -> AgreementId {
    AgreementId::parse(text).unwrap()
}

fn dataset_id(text: &str) -> DatasetId {
    DatasetId::parse(text).unwrap()
}

fn terms() -> PolicyDocument {
    let text = r#"{"@type":"Offer","z":1.5,"permission":[{"action":"use","constraint":[{"a":18446744073709551615}]}]}"#;
    serde_json::from_str(text).unwrap()
}

fn negotiation(id: &str) -> Negotiation {
    Negotiation::begin(pid(id), Role::Provider, who("us"), who("them"), "https://them.example/dsp".to_owned())
}

fn negotiation_with(id: &str, peer_pid: &str) -> Negotiation {
    Negotiation { peer_pid: Some(pid(peer_pid)), ..negotiation(id) }
}

fn transfer(id: &str, agreement: &str) -> Transfer {
    Transfer::begin(Begin {
        id: pid(id),
        role: Role::Provider,
        counterparty: who("them"),
        peer_address: "https://them.example/dsp".to_owned(),
        agreement: agreement_id(agreement),
        dataset: dataset_id("d"),
        format: "HttpData-PULL".to_owned(),
        purpose: vec!["urn:purpose:research".to_owned()],
    })
}

fn agreement(id: &str, negotiation: &str, state: AgreementState) -> AgreementRecord {
    AgreementRecord {
        agreement: Agreement {
            id: agreement_id(id),
            target: dataset_id("d"),
            assigner: who("us"),
            assignee: who("them"),
            agreed_at: at(0),
            policy: terms(),
        },
        role: Role::Provider,
        counterparty: who("them"),
        negotiation: pid(negotiation),
        state,
    }
}

fn message(id: &str, next_attempt: Timestamp) -> OutboxEntry {
    OutboxEntry {
        id: MessageId::parse(id).unwrap(),
        machine: Machine::Negotiation,
        process: pid("n"),
        to: who("them"),
        url: "https://them.example/dsp/negotiations/x/agreement".to_owned(),
        body: r#"{"b":1,"a":2}"#.to_owned(),
        queued: at(0),
        attempts: 0,
        next_attempt,
        last_error: None,
        awaits_answer: true,
    }
}

fn line(process: &str, event: &str) -> AuditRecord {
    AuditRecord {
        at: at(0),
        process: Some(pid(process)),
        counterparty: Some(who("them")),
        agreement: None,
        event: event.to_owned(),
        detail: "it happened".to_owned(),
    }
}

fn dataset(id: &str) -> DatasetRecord {
    DatasetRecord {
        id: dataset_id(id),
        title: "Ships".to_owned(),
        description: String::new(),
        keywords: vec!["harbour".to_owned()],
        media_type: "text/csv".to_owned(),
        source: SourceSpec::File { path: "/data/ships.csv".to_owned() },
        labels: [("classification".to_owned(), serde_json::json!("urn:level:2"))].into(),
        created: at(0),
    }
}

fn offer(id: &str, dataset: &str) -> OfferRecord {
    let offer = PublishedOffer {
        id: OfferId::parse(id).unwrap(),
        dataset: dataset_id(dataset),
        policy: terms(),
        audience: Audience::Only(vec![who("them")]),
    };
    OfferRecord { offer, created: at(0) }
}

fn flow(id: &str, bytes: u64) -> FlowReport {
    FlowReport {
        id: id.to_owned(),
        transfer: pid("t"),
        agreement: agreement_id("a"),
        role: Role::Provider,
        path: None,
        offset: 0,
        bytes,
        digest_blake3: "00".to_owned(),
        started: at(0),
        ended: at(1),
        outcome: FlowOutcome::Cut { reason: "the contract has ended".to_owned() },
        peer_bytes: None,
        peer_digest: None,
    }
}

fn use_of(agreement: &str, transfer: &str, flow: &str, max: Option<u64>) -> TakeUse {
    TakeUse { agreement: agreement_id(agreement), transfer: pid(transfer), flow: flow.to_owned(), max }
}

fn bytes_of(name: &str, amount: u64, max: u64) -> TakeQuantity {
    TakeQuantity { agreement: agreement_id("a"), unit: Unit::Bytes, name: name.to_owned(), amount, max: Some(max) }
}

fn fact(subject: &Subject, name: &str, until: Option<Timestamp>) -> FactRecord {
    FactRecord {
        subject: subject.clone(),
        name: name.to_owned(),
        value: serde_json::json!(["urn:place:1"]),
        since: at(0),
        valid_until: until,
        note: String::new(),
    }
}

fn duty(id: &str, due: Timestamp) -> DutyRecord {
    DutyRecord {
        id: id.to_owned(),
        agreement: agreement_id("a"),
        transfer: Some(pid("t")),
        role: Role::Consumer,
        counterparty: who("them"),
        key: "k".to_owned(),
        path: "permission[0].duty[0]".to_owned(),
        task: DutyTask::Delete,
        state: DutyProgress::Pending,
        due,
        attempts: 0,
        next_attempt: due,
        last_error: None,
        created: at(0),
    }
}

fn received(state: ReceivedState) -> ReceivedRecord {
    ReceivedRecord {
        transfer: pid("t"),
        agreement: agreement_id("a"),
        counterparty: who("them"),
        path: "/received/ships.csv".to_owned(),
        duties: Vec::new(),
        state,
    }
}

fn is_duplicate<T>(result: Result<T, StoreError>, kind: &str) -> bool {
    matches!(result, Err(StoreError::Duplicate { what, .. }) if what == kind)
}

// ── every adapter ──

async fn what_is_committed_is_read_back(store: Store) {
    let now = Timestamp::from_nanosecond(1_800_000_000_123_456_789).unwrap();
    let mut first = negotiation_with("n1", "p1");
    first.state = State::Agreed { agreement: agreement("a", "n1", AgreementState::Pending).agreement };
    let committed = store.commit(Batch::new(now).with_negotiation(first.clone(), 0)).await.unwrap();
    assert_eq!(committed.negotiation, Some(1));

    let loaded = store.negotiation(&pid("n1")).await.unwrap().unwrap();
    assert_eq!(loaded.value, first);
    assert_eq!((loaded.version, loaded.created, loaded.updated), (1, rounded(now), rounded(now)));
    let by_peer = store.negotiation_by_peer(&who("them"), &pid("p1"), Role::Provider).await.unwrap();
    assert_eq!(by_peer, Some(loaded));
    assert_eq!(store.negotiation_by_peer(&who("them"), &pid("p1"), Role::Consumer).await.unwrap(), None);
    assert_eq!(store.negotiation_by_peer(&who("others"), &pid("p1"), Role::Provider).await.unwrap(), None);

    first.problem = Some("none".to_owned());
    let later = now + SignedDuration::from_secs(1);
    assert_eq!(
        store.commit(Batch::new(later).with_negotiation(first, 1)).await.unwrap().negotiation,
        Some(2),
        "the version counts up"
    );
    let loaded = store.negotiation(&pid("n1")).await.unwrap().unwrap();
    assert_eq!((loaded.version, loaded.created, loaded.updated), (2, rounded(now), rounded(later)));
    assert_eq!(store.negotiation(&pid("n2")).await.unwrap(), None);
}

async fn a_stale_version_is_a_conflict(store: Store) {
    store.commit(Batch::new(at(0)).with_negotiation(negotiation("n"), 0)).await.unwrap();
    store.commit(Batch::new(at(1)).with_negotiation(negotiation("n"), 1)).await.unwrap();
    let stale = store.commit(Batch::new(at(2)).with_negotiation(negotiation("n"), 1)).await;
    assert_eq!(stale, Err(StoreError::Conflict { what: "negotiation", id: "n".to_owned() }));
    let unknown = store.commit(Batch::new(at(2)).with_transfer(transfer("t", "a"), 3)).await;
    assert_eq!(unknown, Err(StoreError::Conflict { what: "transfer", id: "t".to_owned() }));
    let again = store.commit(Batch::new(at(2)).with_negotiation(negotiation("n"), 0)).await;
    assert!(is_duplicate(again, "negotiation"));
}

async fn a_second_process_for_the_same_peer_process_is_a_duplicate(store: Store) {
    store.commit(Batch::new(at(0)).with_negotiation(negotiation_with("n1", "p"), 0)).await.unwrap();
    let second = store.commit(Batch::new(at(0)).with_negotiation(negotiation_with("n2", "p"), 0)).await;
    assert!(is_duplicate(second, "negotiation"));
    let other_role = Negotiation { role: Role::Consumer, ..negotiation_with("n3", "p") };
    store.commit(Batch::new(at(0)).with_negotiation(other_role, 0)).await.unwrap();
    let somebody_else = Negotiation { counterparty: who("others"), ..negotiation_with("n4", "p") };
    store.commit(Batch::new(at(0)).with_negotiation(somebody_else, 0)).await.unwrap();
    // Unknown on the other side is not the same as known to be equal.
    store.commit(Batch::new(at(0)).with_negotiation(negotiation("n5"), 0)).await.unwrap();
    store.commit(Batch::new(at(0)).with_negotiation(negotiation("n6"), 0)).await.unwrap();
    let learnt = store.commit(Batch::new(at(0)).with_negotiation(negotiation_with("n6", "p"), 1)).await;
    assert!(is_duplicate(learnt, "negotiation"));

    let with_peer = |id: &str| Transfer { peer_pid: Some(pid("p")), ..transfer(id, "a") };
    store.commit(Batch::new(at(0)).with_transfer(with_peer("t1"), 0)).await.unwrap();
    assert!(is_duplicate(store.commit(Batch::new(at(0)).with_transfer(with_peer("t2"), 0)).await, "transfer"));
    let found = store.transfer_by_peer(&who("them"), &pid("p"), Role::Provider).await.unwrap().unwrap();
    assert_eq!(found.value.id, pid("t1"));
}

async fn a_failing_batch_leaves_nothing_of_any_part(store: Store) {
    store.commit(Batch::new(at(0)).sending(message("kept", at(0))).recording(line("n", "kept"))).await.unwrap();
    // Everything fits but the last dataset to be withdrawn.
    let mut batch = Batch::new(at(1))
        .with_negotiation(negotiation_with("n", "p"), 0)
        .with_transfer(transfer("t", "a"), 0)
        .with_detail(TransferDetail { token_digest: Some("digest".to_owned()), ..TransferDetail::new(pid("t")) })
        .with_agreement(agreement("a", "n", AgreementState::InForce))
        .taking(use_of("a", "t", "", Some(1)))
        .sending(message("m", at(0)))
        .retrying(OutboxEntry { attempts: 7, ..message("kept", at(9)) })
        .done(MessageId::parse("kept").unwrap())
        .waking(pid("t"), Some(at(5)))
        .with_flow(flow("f", 1))
        .with_dataset(dataset("d"), Expect::New)
        .with_policy(PolicyRecord { id: "p".to_owned(), document: terms() }, Expect::New)
        .with_offer(offer("o", "d"), Expect::New)
        .recording(line("n", "lost"));
    batch.delete_datasets.push(dataset_id("not there"));
    let failed = store.commit(batch.clone()).await;
    assert_eq!(failed, Err(StoreError::NotFound { what: "dataset", id: "not there".to_owned() }));

    assert_eq!(store.negotiation(&pid("n")).await.unwrap(), None);
    assert_eq!(store.negotiation_by_peer(&who("them"), &pid("p"), Role::Provider).await.unwrap(), None);
    assert_eq!(store.transfer(&pid("t")).await.unwrap(), None);
    assert_eq!(store.transfer_detail(&pid("t")).await.unwrap(), None);
    assert_eq!(store.transfer_by_token("digest").await.unwrap(), None);
    assert_eq!(store.agreement(&agreement_id("a")).await.unwrap(), None);
    assert_eq!(store.uses(&agreement_id("a")).await.unwrap(), 0);
    assert_eq!(store.outbox_all().await.unwrap(), vec![message("kept", at(0))]);
    assert_eq!(store.next_wake().await.unwrap(), None);
    assert_eq!(store.flows(&pid("t")).await.unwrap(), Vec::new());
    assert_eq!(store.dataset(&dataset_id("d")).await.unwrap(), None);
    assert_eq!(store.policy("p").await.unwrap(), None);
    assert_eq!(store.offer(&OfferId::parse("o").unwrap()).await.unwrap(), None);
    assert_eq!(store.audit(&AuditFilter::default(), &Page::default()).await.unwrap().items.len(), 1);

    // The same batch without its fault is taken whole: nothing of it lingers.
    batch.delete_datasets.clear();
    let committed = store.commit(batch).await.unwrap();
    assert_eq!(committed, Committed { negotiation: Some(1), transfer: Some(1), uses: Some(1) });
    assert_eq!(store.outbox_all().await.unwrap(), vec![message("m", at(0))]);
}

async fn parallel_uses_are_counted_exactly(store: Store) {
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let batch = Batch::new(at(0))
                    .taking(use_of("a", &format!("t{number}"), "", Some(10)))
                    .recording(line("n", "taken"));
                store.commit(batch).await
            })
        })
        .collect();
    let mut counts = HashSet::new();
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(committed) => assert!(counts.insert(committed.uses.unwrap()), "no count is given twice"),
            Err(error) => {
                assert_eq!(error, StoreError::UseExhausted { agreement: agreement_id("a"), taken: 10, max: 10 });
                refused += 1;
            }
        }
    }
    assert_eq!((counts, refused), ((1..=10).collect(), 54));
    assert_eq!(store.uses(&agreement_id("a")).await.unwrap(), 10);
    assert_eq!(store.audit(&AuditFilter::default(), &Page::largest()).await.unwrap().items.len(), 10);
}

async fn the_same_use_counts_once(store: Store) {
    let take = |transfer: &str, flow: &str| {
        let batch = Batch::new(at(0)).taking(use_of("a", transfer, flow, Some(2)));
        let store = store.clone();
        async move { store.commit(batch).await.map(|committed| committed.uses) }
    };
    assert_eq!(take("t", "f").await, Ok(Some(1)));
    assert_eq!(take("t", "f").await, Ok(Some(1)));
    assert_eq!(take("t", "g").await, Ok(Some(2)));
    assert_eq!(take("t", "f").await, Ok(Some(2)), "taken before, so it passes though none is left");
    assert!(matches!(take("u", "f").await, Err(StoreError::UseExhausted { taken: 2, max: 2, .. })));
    let unlimited = store.commit(Batch::new(at(0)).taking(use_of("a", "u", "f", None))).await.unwrap();
    assert_eq!(unlimited.uses, Some(3));
    assert_eq!(store.uses(&agreement_id("b")).await.unwrap(), 0);
}

async fn parallel_steps_of_one_process_let_one_through_each_time(store: Store) {
    store.commit(Batch::new(at(0)).with_negotiation(negotiation("n"), 0)).await.unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let loaded = store.negotiation(&pid("n")).await.unwrap().unwrap();
                    let mut next = loaded.value;
                    next.rounds += 1;
                    match store.commit(Batch::new(at(1)).with_negotiation(next, loaded.version)).await {
                        Ok(_) => return,
                        Err(error) => assert!(error.is_conflict(), "{error}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let loaded = store.negotiation(&pid("n")).await.unwrap().unwrap();
    assert_eq!((loaded.value.rounds, loaded.version), (16, 17));
}

async fn failing_batches_do_not_disturb_their_neighbours(store: Store) {
    store.commit(Batch::new(at(0)).with_negotiation(negotiation("taken"), 0)).await.unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let good = number % 3 != 0;
                let id = if good { format!("n{number}") } else { "taken".to_owned() };
                let batch = Batch::new(at(1))
                    .sending(message(&format!("m{number}"), at(number)))
                    .with_negotiation(negotiation(&id), 0)
                    .recording(line(&id, "made"));
                assert_eq!(store.commit(batch).await.is_ok(), good);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let kept: HashSet<String> = store.outbox_all().await.unwrap().into_iter().map(|m| m.id.to_string()).collect();
    assert_eq!(kept, (0..200).filter(|n| n % 3 != 0).map(|n| format!("m{n}")).collect());
    let lines = store.audit(&AuditFilter::default(), &Page::largest()).await.unwrap().items.len();
    assert_eq!(lines, kept.len());
}

async fn pages_are_newest_first_and_stable(store: Store) {
    for number in 0..7 {
        // All at the same instant: the order must not hang on the clock.
        store.commit(Batch::new(at(0)).with_negotiation(negotiation(&format!("n{number}")), 0)).await.unwrap();
    }
    let page = |after: Option<String>| Page { after, limit: 3 };
    let ids = |listing: &Listing<Versioned<Negotiation>>| -> Vec<String> {
        listing.items.iter().map(|item| item.value.id.to_string()).collect()
    };
    let all = NegotiationFilter::default();
    let first = store.negotiations(&all, &page(None)).await.unwrap();
    assert_eq!(ids(&first), ["n6", "n5", "n4"]);
    // What is added or changed meanwhile does not shift what follows.
    store.commit(Batch::new(at(9)).with_negotiation(negotiation("n7"), 0)).await.unwrap();
    store.commit(Batch::new(at(9)).with_negotiation(negotiation("n2"), 1)).await.unwrap();
    let second = store.negotiations(&all, &page(first.next)).await.unwrap();
    assert_eq!(ids(&second), ["n3", "n2", "n1"]);
    let third = store.negotiations(&all, &page(second.next)).await.unwrap();
    assert_eq!((ids(&third), third.next), (vec!["n0".to_owned()], None));

    let exact = store.negotiations(&all, &Page { after: None, limit: 8 }).await.unwrap();
    assert_eq!((exact.items.len(), exact.next), (8, None), "a full last page is the last page");
    let least = store.negotiations(&all, &Page { after: None, limit: 0 }).await.unwrap();
    assert_eq!(least.items.len(), 1);

    let mut many = Batch::new(at(0));
    for number in 0..=PAGE_MAX {
        many = many.recording(line("n", &number.to_string()));
    }
    store.commit(many).await.unwrap();
    let bounded = store.audit(&AuditFilter::default(), &Page { after: None, limit: u32::MAX }).await.unwrap();
    assert_eq!(bounded.items.len(), PAGE_MAX as usize);
    assert!(bounded.next.is_some());
}

async fn filters_must_all_fit(store: Store) {
    let ended = Ended { by: Role::Consumer, code: None, reason: vec!["no".to_owned()] };
    let terminated = Negotiation { state: State::Terminated { ended }, ..negotiation("n1") };
    let consumer = Negotiation { role: Role::Consumer, ..negotiation("n2") };
    let others = Negotiation { counterparty: who("others"), ..negotiation("n3") };
    for one in [terminated, consumer, others] {
        store.commit(Batch::new(at(0)).with_negotiation(one, 0)).await.unwrap();
    }
    let count = |filter: NegotiationFilter| {
        let store = store.clone();
        async move { store.negotiations(&filter, &Page::default()).await.unwrap().items.len() }
    };
    let provider = NegotiationFilter { role: Some(Role::Provider), ..NegotiationFilter::default() };
    assert_eq!(count(NegotiationFilter::default()).await, 3);
    assert_eq!(count(provider.clone()).await, 2);
    assert_eq!(count(NegotiationFilter { counterparty: Some(who("them")), ..provider.clone() }).await, 1);
    let state = Some(negotiation::StateName::Terminated);
    assert_eq!(count(NegotiationFilter { state, ..provider }).await, 1);
    assert_eq!(count(NegotiationFilter { state, role: Some(Role::Consumer), ..NegotiationFilter::default() }).await, 0);

    store.commit(Batch::new(at(0)).with_transfer(transfer("t1", "a"), 0)).await.unwrap();
    store.commit(Batch::new(at(0)).with_transfer(transfer("t2", "b"), 0)).await.unwrap();
    let under_b = TransferFilter { agreement: Some(agreement_id("b")), ..TransferFilter::default() };
    let found = store.transfers(&under_b, &Page::default()).await.unwrap().items;
    assert_eq!(found.iter().map(|item| item.value.id.as_str()).collect::<Vec<_>>(), ["t2"]);
}

async fn a_foreign_cursor_is_refused(store: Store) {
    for cursor in ["", "x", "-1", "99999999999999999999", "1; DROP TABLE audit"] {
        let page = Page { after: Some(cursor.to_owned()), limit: 1 };
        assert_eq!(store.datasets(&page).await, Err(StoreError::Cursor(cursor.to_owned())));
    }
}

async fn the_page_before_is_found_from_any_page(store: Store) {
    for number in 0..7 {
        store.commit(Batch::new(at(0)).with_dataset(dataset(&format!("d{number}")), Expect::New)).await.unwrap();
    }
    let mut pages = vec![Page { after: None, limit: 3 }];
    while let Some(next) = store.datasets(pages.last().unwrap()).await.unwrap().next {
        pages.push(Page { after: Some(next), limit: 3 });
    }
    assert_eq!(pages.len(), 3);
    assert_eq!(store.datasets_page_before(&pages[0]).await.unwrap(), None);
    let of = async |page: &Page| store.datasets(page).await.unwrap().items;
    for before in [0, 1] {
        let found = store.datasets_page_before(&pages[before + 1]).await.unwrap().unwrap();
        assert_eq!(of(&found).await, of(&pages[before]).await, "the page before page {}", before + 1);
    }
    // What is newer than the first page was: the page before begins with it and is as long as the others.
    store.commit(Batch::new(at(0)).with_dataset(dataset("d7"), Expect::New)).await.unwrap();
    let found = store.datasets_page_before(&pages[1]).await.unwrap().unwrap();
    assert_eq!(of(&found).await.len(), 3);
    store.commit(Batch { delete_datasets: vec![dataset_id("d0")], ..Batch::new(at(0)) }).await.unwrap();
    assert_eq!(
        store.datasets_page_before(&Page { after: Some("999".to_owned()), limit: 3 }).await.unwrap(),
        Some(Page { after: None, limit: 3 })
    );
}

async fn wakes_are_due_at_their_time_until_cleared(store: Store) {
    store.commit(Batch::new(at(0)).waking(pid("late"), Some(at(20)))).await.unwrap();
    store.commit(Batch::new(at(0)).waking(pid("early"), Some(at(10)))).await.unwrap();
    assert_eq!(store.next_wake().await.unwrap(), Some(at(10)));
    assert_eq!(store.wakes_due(at(9), 10).await.unwrap(), Vec::new());
    assert_eq!(store.wakes_due(at(10), 10).await.unwrap(), vec![(pid("early"), at(10))]);
    assert_eq!(store.wakes_due(at(10), 10).await.unwrap().len(), 1, "looking does not clear");
    assert_eq!(store.wakes_due(at(99), 1).await.unwrap().len(), 1);
    // A later one replaces an earlier one.
    store.commit(Batch::new(at(0)).waking(pid("early"), Some(at(30)))).await.unwrap();
    assert_eq!(store.next_wake().await.unwrap(), Some(at(20)));
    store.commit(Batch::new(at(0)).waking(pid("late"), None)).await.unwrap();
    store.commit(Batch::new(at(0)).waking(pid("never"), None)).await.unwrap();
    assert_eq!(store.wakes_due(at(99), 10).await.unwrap(), vec![(pid("early"), at(30))]);
    // Whoever was woken for an earlier time takes nothing away from a later one.
    let woken = |due| Batch { woken: Some((pid("early"), at(due))), ..Batch::new(at(0)) };
    store.commit(woken(29)).await.unwrap();
    assert_eq!(store.next_wake().await.unwrap(), Some(at(30)));
    store.commit(woken(30)).await.unwrap();
    store.commit(woken(30)).await.unwrap();
    assert_eq!(store.next_wake().await.unwrap(), None);
    store.commit(Batch::new(at(0)).waking(pid("early"), Some(at(5)))).await.unwrap();
    store.commit(Batch::new(at(0)).waking(pid("early"), None)).await.unwrap();
    assert_eq!(store.next_wake().await.unwrap(), None);
}

async fn the_outbox_keeps_its_order(store: Store) {
    let batch = Batch::new(at(0)).sending(message("z", at(5))).sending(message("a", at(1)));
    store.commit(batch).await.unwrap();
    store.commit(Batch::new(at(0)).sending(message("m", at(3)))).await.unwrap();
    let names = |entries: Vec<OutboxEntry>| entries.into_iter().map(|m| m.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(store.outbox_all().await.unwrap()), ["z", "a", "m"]);

    // A failed attempt keeps its place.
    let failed = OutboxEntry { attempts: 1, last_error: Some("refused".to_owned()), ..message("z", at(60)) };
    store.commit(Batch::new(at(6)).retrying(failed.clone())).await.unwrap();
    assert_eq!(store.outbox_all().await.unwrap().first(), Some(&failed));
    assert!(is_duplicate(store.commit(Batch::new(at(0)).sending(message("m", at(0)))).await, "message"));
}

async fn a_delivered_message_does_not_come_back_by_a_late_retry(store: Store) {
    store.commit(Batch::new(at(0)).sending(message("m", at(0)))).await.unwrap();
    store.commit(Batch::new(at(1)).done(MessageId::parse("m").unwrap())).await.unwrap();
    store.commit(Batch::new(at(2)).retrying(OutboxEntry { attempts: 1, ..message("m", at(9)) })).await.unwrap();
    store.commit(Batch::new(at(2)).done(MessageId::parse("m").unwrap())).await.unwrap();
    assert_eq!(store.outbox_all().await.unwrap(), Vec::new());
}

async fn an_agreement_only_moves_on(store: Store) {
    let revoked = AgreementState::Revoked { reason: "misuse".to_owned(), at: at(3) };
    let put = |state: AgreementState| {
        let store = store.clone();
        async move {
            store.commit(Batch::new(at(1)).with_agreement(agreement("a", "n", state))).await.unwrap();
            store.agreement(&agreement_id("a")).await.unwrap().unwrap().value.state
        }
    };
    assert_eq!(put(AgreementState::Pending).await, AgreementState::Pending);
    assert_eq!(put(AgreementState::InForce).await, AgreementState::InForce);
    assert_eq!(put(AgreementState::Pending).await, AgreementState::InForce);
    assert_eq!(put(revoked.clone()).await, revoked);
    assert_eq!(put(AgreementState::InForce).await, revoked);
    let filter =
        AgreementFilter { state: Some("revoked"), dataset: Some(dataset_id("d")), ..AgreementFilter::default() };
    assert_eq!(store.agreements(&filter, &Page::default()).await.unwrap().items.len(), 1);
}

async fn an_agreement_cannot_be_taken_over_by_its_identifier(store: Store) {
    let held = agreement("a", "n", AgreementState::InForce);
    store.commit(Batch::new(at(0)).with_agreement(held.clone())).await.unwrap();
    let mut altered = held.clone();
    altered.agreement.target = dataset_id("the crown jewels");
    for foreign in [
        AgreementRecord { counterparty: who("mallory"), ..held.clone() },
        AgreementRecord { negotiation: pid("another"), ..held.clone() },
        AgreementRecord { role: Role::Consumer, ..held.clone() },
        altered,
    ] {
        assert!(is_duplicate(store.commit(Batch::new(at(1)).with_agreement(foreign)).await, "agreement"));
    }
    assert_eq!(store.agreement(&agreement_id("a")).await.unwrap().unwrap().value, held);
}

async fn a_token_finds_its_transfer(store: Store) {
    let detail = TransferDetail {
        token_digest: Some("digest".to_owned()),
        binding: Some(TokenBinding::Certificate { sha256: "ab".repeat(32) }),
        ..TransferDetail::new(pid("t"))
    };
    let batch = Batch::new(at(0)).with_transfer(transfer("t", "a"), 0).with_detail(detail.clone());
    store.commit(batch).await.unwrap();
    let (found, with) = store.transfer_by_token("digest").await.unwrap().unwrap();
    assert_eq!((found.value, with), (transfer("t", "a"), detail.clone()));
    assert_eq!(store.transfer_by_token("other").await.unwrap(), None);
    // A new token closes the old one.
    let renewed = TransferDetail { token_digest: Some("renewed".to_owned()), ..detail };
    store.commit(Batch::new(at(1)).with_detail(renewed)).await.unwrap();
    assert_eq!(store.transfer_by_token("digest").await.unwrap(), None);
    assert!(store.transfer_by_token("renewed").await.unwrap().is_some());
}

async fn two_transfers_cannot_share_a_token(store: Store) {
    let detail = |id: &str| TransferDetail { token_digest: Some("x".to_owned()), ..TransferDetail::new(pid(id)) };
    store.commit(Batch::new(at(0)).with_detail(detail("t1"))).await.unwrap();
    assert!(is_duplicate(store.commit(Batch::new(at(0)).with_detail(detail("t2"))).await, "transfer detail"));
    store.commit(Batch::new(at(0)).with_detail(TransferDetail::new(pid("t3")))).await.unwrap();
    store.commit(Batch::new(at(0)).with_detail(TransferDetail::new(pid("t4")))).await.unwrap();
}

async fn a_flow_report_is_replaced_by_its_identifier(store: Store) {
    store.commit(Batch::new(at(0)).with_flow(flow("f1", 1))).await.unwrap();
    store.commit(Batch::new(at(0)).with_flow(flow("f2", 2))).await.unwrap();
    let compared = FlowReport { peer_bytes: Some(1), peer_digest: Some("00".to_owned()), ..flow("f1", 1) };
    store.commit(Batch::new(at(1)).with_flow(compared.clone())).await.unwrap();
    assert_eq!(store.flows(&pid("t")).await.unwrap(), vec![compared.clone(), flow("f2", 2)]);
    assert_eq!(store.flow("f1").await.unwrap(), Some(compared.clone()));
    assert_eq!(store.flows(&pid("other")).await.unwrap(), Vec::new());
    // A provider that calls its flow as another one is called.
    let theirs = FlowReport { transfer: pid("other"), ..flow("f1", 7) };
    store.commit(Batch::new(at(2)).with_flow(theirs.clone())).await.unwrap();
    assert_eq!(store.flows(&pid("t")).await.unwrap(), vec![compared, flow("f2", 2)]);
    assert_eq!(store.flows(&pid("other")).await.unwrap(), vec![FlowReport { id: "other:f1".to_owned(), ..theirs }]);
}

async fn withdrawing_a_dataset_withdraws_its_offers(store: Store) {
    let batch = Batch::new(at(0))
        .with_dataset(dataset("d"), Expect::New)
        .with_dataset(dataset("e"), Expect::New)
        .with_offer(offer("o1", "d"), Expect::New)
        .with_offer(offer("o2", "d"), Expect::New)
        .with_offer(offer("o3", "e"), Expect::New)
        .with_agreement(agreement("a", "n", AgreementState::InForce));
    store.commit(batch).await.unwrap();
    assert_eq!(store.offers_of(&dataset_id("d")).await.unwrap(), vec![offer("o1", "d"), offer("o2", "d")]);
    let mut batch = Batch::new(at(1));
    batch.delete_datasets.push(dataset_id("d"));
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(store.dataset(&dataset_id("d")).await.unwrap(), None);
    assert_eq!(store.offers(Some(&dataset_id("d")), &Page::default()).await.unwrap().items, Vec::new());
    let left = store.offers(None, &Page::default()).await.unwrap().items;
    assert_eq!(left.into_iter().map(|item| item.value).collect::<Vec<_>>(), vec![offer("o3", "e")]);
    assert!(store.agreement(&agreement_id("a")).await.unwrap().is_some(), "agreements stay");
    assert!(matches!(store.commit(batch).await, Err(StoreError::NotFound { what: "dataset", .. })));
}

async fn an_offer_needs_its_dataset(store: Store) {
    let orphan = store.commit(Batch::new(at(0)).with_offer(offer("o", "d"), Expect::New)).await;
    assert_eq!(orphan, Err(StoreError::NotFound { what: "dataset", id: "d".to_owned() }));
    let mut batch = Batch::new(at(0));
    batch.delete_offers.push(OfferId::parse("o").unwrap());
    assert!(matches!(store.commit(batch).await, Err(StoreError::NotFound { what: "offer", .. })));
    let mut batch = Batch::new(at(0));
    batch.delete_policies.push("p".to_owned());
    assert!(matches!(store.commit(batch).await, Err(StoreError::NotFound { what: "policy", .. })));
}

async fn datasets_are_replaced_only_as_expected(store: Store) {
    let put = |title: &str, expect: Expect| {
        let store = store.clone();
        let record = DatasetRecord { title: title.to_owned(), ..dataset("d") };
        async move { store.commit(Batch::new(at(0)).with_dataset(record, expect)).await }
    };
    put("one", Expect::New).await.unwrap();
    assert!(is_duplicate(put("two", Expect::New).await, "dataset"));
    put("three", Expect::Version(1)).await.unwrap();
    assert!(put("four", Expect::Version(1)).await.unwrap_err().is_conflict());
    put("five", Expect::Any).await.unwrap();
    // An offer on it does not stand in the way of replacing it.
    store.commit(Batch::new(at(0)).with_offer(offer("o", "d"), Expect::New)).await.unwrap();
    put("six", Expect::Any).await.unwrap();
    let found = store.dataset(&dataset_id("d")).await.unwrap().unwrap();
    assert_eq!((found.value.title.as_str(), found.version), ("six", 4));
}

async fn the_audit_log_counts_up_and_filters(store: Store) {
    store.commit(Batch::new(at(0)).recording(line("n1", "a")).recording(line("n2", "b"))).await.unwrap();
    store.commit(Batch::new(at(0)).recording(line("n1", "c"))).await.unwrap();
    let all = store.audit(&AuditFilter::default(), &Page::default()).await.unwrap().items;
    let seen: Vec<_> = all.iter().map(|line| (line.seq, line.record.event.as_str())).collect();
    assert_eq!(seen, [(3, "c"), (2, "b"), (1, "a")]);
    let one = AuditFilter { process: Some(pid("n1")), ..AuditFilter::default() };
    let page = Page { after: None, limit: 1 };
    let first = store.audit(&one, &page).await.unwrap();
    assert_eq!(first.items.first().map(|line| line.seq), Some(3));
    let second = store.audit(&one, &Page { after: first.next, limit: 1 }).await.unwrap();
    assert_eq!((second.items.first().map(|line| line.seq), second.next), (Some(1), None));
    let shown = serde_json::to_value(&second.items).unwrap();
    assert_eq!(shown.pointer("/0/event").and_then(|event| event.as_str()), Some("a"));
}

async fn publications_are_kept_by_broker(store: Store) {
    let publication = Publication {
        broker: who("broker"),
        url: "https://broker.example".to_owned(),
        digest: None,
        lease_until: None,
        last_error: None,
    };
    let renewed = Publication { digest: Some("d".to_owned()), lease_until: Some(at(60)), ..publication.clone() };
    store.commit(Batch { publication: Some(publication), ..Batch::new(at(0)) }).await.unwrap();
    store.commit(Batch { publication: Some(renewed.clone()), ..Batch::new(at(0)) }).await.unwrap();
    assert_eq!(store.publications().await.unwrap(), vec![renewed]);
    store.commit(Batch { delete_publication: Some(who("broker")), ..Batch::new(at(0)) }).await.unwrap();
    assert_eq!(store.publications().await.unwrap(), Vec::new());
}

async fn facts_are_kept_by_register_and_subject(store: Store) {
    let (ours, theirs) = (Subject::Participant(who("us")), Subject::Participant(who("them")));
    let batch = Batch::new(at(0))
        .with_fact(fact(&ours, "spatial", None))
        .with_fact(fact(&theirs, "spatial", Some(at(9))))
        .with_fact(fact(&Subject::Events, "urn:event:fair", None))
        .with_fact(fact(&Subject::Agreement(agreement_id("urn:participant:us")), "consent", None));
    store.commit(batch).await.unwrap();
    assert_eq!(store.facts(&ours).await.unwrap(), vec![fact(&ours, "spatial", None)]);
    // The same name again is the same fact.
    store.commit(Batch::new(at(1)).with_fact(fact(&theirs, "spatial", None))).await.unwrap();
    assert_eq!(store.facts(&theirs).await.unwrap(), vec![fact(&theirs, "spatial", None)]);
    assert_eq!(store.facts(&Subject::States).await.unwrap(), Vec::new());
    let forget = Batch { delete_facts: vec![(ours.clone(), "spatial".to_owned())], ..Batch::new(at(2)) };
    store.commit(forget.clone()).await.unwrap();
    assert_eq!(store.facts(&ours).await.unwrap(), Vec::new());
    assert!(matches!(store.commit(forget).await, Err(StoreError::NotFound { what: "fact", .. })));
}

async fn a_register_is_replaced_as_a_whole(store: Store) {
    let (ours, theirs) = (Subject::Participant(who("us")), Subject::Participant(who("them")));
    let batch = Batch::new(at(0)).with_fact(fact(&ours, "spatial", None)).with_fact(fact(&theirs, "role", None));
    store.commit(batch).await.unwrap();
    let replace = Batch { clear_facts: Some(ours.clone()), ..Batch::new(at(1)) }.with_fact(fact(&ours, "role", None));
    store.commit(replace).await.unwrap();
    assert_eq!(store.facts(&ours).await.unwrap(), vec![fact(&ours, "role", None)]);
    assert_eq!(store.facts(&theirs).await.unwrap(), vec![fact(&theirs, "role", None)]);
}

async fn a_duty_is_made_once_and_settled_once(store: Store) {
    store.commit(Batch::new(at(0)).owing(duty("one", at(5)))).await.unwrap();
    let failed = DutyRecord { attempts: 1, next_attempt: at(7), ..duty("one", at(5)) };
    store.commit(Batch { duties_tried: vec![failed.clone()], ..Batch::new(at(5)) }).await.unwrap();
    // The occasion again, after a crash: the duty stays as it is.
    store.commit(Batch::new(at(6)).owing(duty("one", at(5)))).await.unwrap();
    let all = DutyFilter { agreement: Some(agreement_id("a")), transfer: Some(pid("t")), ..DutyFilter::default() };
    let held = |listing: Listing<Versioned<DutyRecord>>| -> Vec<DutyRecord> {
        listing.items.into_iter().map(|found| found.value).collect()
    };
    assert_eq!(held(store.duties(&all, &Page::default()).await.unwrap()), vec![failed.clone()]);
    let done = |text: &str| DutyRecord {
        state: DutyProgress::Fulfilled { at: at(7), detail: text.to_owned() },
        ..failed.clone()
    };
    store.commit(Batch { duties_tried: vec![done("done")], ..Batch::new(at(7)) }).await.unwrap();
    store.commit(Batch { duties_tried: vec![done("again")], ..Batch::new(at(8)) }).await.unwrap();
    store.commit(Batch { duties_tried: vec![duty("unknown", at(5))], ..Batch::new(at(8)) }).await.unwrap();
    let fulfilled = DutyFilter { state: Some("fulfilled"), ..DutyFilter::default() };
    assert_eq!(held(store.duties(&fulfilled, &Page::default()).await.unwrap()), vec![done("done")]);
    let pending = DutyFilter { state: Some("pending"), ..DutyFilter::default() };
    assert_eq!(held(store.duties(&pending, &Page::default()).await.unwrap()), Vec::new());
}

async fn a_pending_duty_is_due_until_it_is_settled(store: Store) {
    assert_eq!(store.next_duty().await.unwrap(), None);
    store.commit(Batch::new(at(0)).owing(duty("late", at(9))).owing(duty("soon", at(5)))).await.unwrap();
    assert_eq!(store.next_duty().await.unwrap(), Some(at(5)));
    assert_eq!(store.duties_due(at(4), 10).await.unwrap(), Vec::new());
    assert_eq!(store.duties_due(at(5), 10).await.unwrap(), vec![duty("soon", at(5))]);
    let done = DutyRecord { state: DutyProgress::Violated { at: at(5), detail: String::new() }, ..duty("soon", at(5)) };
    store.commit(Batch { duties_tried: vec![done], ..Batch::new(at(5)) }).await.unwrap();
    assert_eq!(store.duties_due(at(8), 10).await.unwrap(), Vec::new());
    assert_eq!(store.next_duty().await.unwrap(), Some(at(9)));
}

async fn what_was_received_only_moves_on(store: Store) {
    let kept = || ReceivedState::Kept { at: at(1), bytes: 3, digest_blake3: "00".to_owned() };
    let gone = || ReceivedState::Deleted { at: at(2), received: at(1), bytes: 3, digest_blake3: "00".to_owned() };
    for state in [ReceivedState::Receiving, kept(), ReceivedState::Receiving] {
        store.commit(Batch::new(at(0)).receiving(received(state))).await.unwrap();
    }
    assert_eq!(store.received(&pid("t")).await.unwrap(), Some(received(kept())));
    for state in [gone(), kept()] {
        store.commit(Batch::new(at(0)).receiving(received(state))).await.unwrap();
    }
    assert_eq!(store.received_at("/received/ships.csv").await.unwrap(), vec![received(gone())]);
    assert_eq!(store.received_at("/received").await.unwrap(), Vec::new());
    assert_eq!(store.received_all(&Page::default()).await.unwrap().items.len(), 1);
}

async fn what_is_being_received_takes_up_duties_and_loses_none(store: Store) {
    let policy = serde_json::json!({ "permission": [{ "action": "use", "duty": [{ "action": "idsc:LOG" }, { "action": "delete" }] }] });
    let policy = kontor_core::policy::parse(&PolicyDocument::from_value(policy).unwrap()).unwrap();
    let [log, delete] = kontor_core::policy::duties(&policy).try_into().unwrap();
    let with = |duties: &[&DueDuty], state| ReceivedRecord {
        duties: duties.iter().map(|duty| (*duty).clone()).collect(),
        ..received(state)
    };
    let kept = ReceivedState::Kept { at: at(1), bytes: 3, digest_blake3: "00".to_owned() };
    for (duties, state, expected) in [
        (&[][..], ReceivedState::Receiving, &[][..]),
        (&[&log], ReceivedState::Receiving, &[&log]),
        (&[&delete], ReceivedState::Receiving, &[&delete, &log]),
        (&[&log], kept.clone(), &[&log, &delete]),
        (&[], ReceivedState::Receiving, &[&log, &delete]),
    ] {
        store.commit(Batch::new(at(0)).receiving(with(duties, state))).await.unwrap();
        let held = store.received(&pid("t")).await.unwrap().unwrap();
        assert_eq!(held.duties, with(expected, kept.clone()).duties);
    }
}

async fn parallel_flows_never_take_more_bytes_than_allowed(store: Store) {
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut won = 0_u64;
                for step in 1..=10 {
                    let take = bytes_of(&format!("flow {task}"), step * 10, 777);
                    match store.commit(Batch::new(at(0)).taking_quantity(take)).await {
                        Ok(_) => won = step * 10,
                        Err(StoreError::QuantityExhausted { taken, max, .. }) => {
                            assert!(max == 777 && taken <= 777 && taken + step * 10 > 777, "{taken}");
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, 770, "all that is left in tens is taken, and no byte more");
    assert_eq!(store.quantity_taken(&agreement_id("a"), Unit::Bytes).await.unwrap(), 770);
}

async fn bytes_that_were_not_used_are_given_back(store: Store) {
    let take = |name: &str, amount| store.commit(Batch::new(at(0)).taking_quantity(bytes_of(name, amount, 100)));
    let a = agreement_id("a");
    let taken = || store.quantity_taken(&a, Unit::Bytes);
    take("one", 100).await.unwrap();
    let (agreement, unit) = (agreement_id("a"), Unit::Bytes);
    let error = StoreError::QuantityExhausted { agreement, unit, taken: 100, max: 100 };
    assert_eq!(take("two", 1).await, Err(error));
    take("one", 60).await.unwrap();
    take("two", 40).await.unwrap();
    assert_eq!(taken().await.unwrap(), 100);
    // Records are counted apart.
    let records = TakeQuantity { unit: Unit::Records, ..bytes_of("one", 7, 7) };
    store.commit(Batch::new(at(0)).taking_quantity(records)).await.unwrap();
    // Giving back is never refused, not even above a limit that shrank.
    let less = TakeQuantity { max: Some(10), ..bytes_of("two", 30, 0) };
    store.commit(Batch::new(at(0)).taking_quantity(less)).await.unwrap();
    assert_eq!(taken().await.unwrap(), 90);
    assert_eq!(store.quantity_taken(&agreement_id("a"), Unit::Records).await.unwrap(), 7);
}

async fn a_healthy_store_says_so(store: Store) {
    store.health().await.unwrap();
}

// ── SQLite alone ──

fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let batch = Batch::new(at(0))
        .with_negotiation(negotiation_with("n", "p"), 0)
        .sending(message("m", at(0)))
        .taking(use_of("a", "t", "", Some(1)))
        .waking(pid("t"), Some(at(7)));
    store.commit(batch).await.unwrap();
    drop(store);
    assert!(!dir.path().join("kontor.sqlite3-wal").exists(), "a clean end leaves one file");

    let store = open(dir.path());
    assert_eq!(store.negotiation(&pid("n")).await.unwrap().unwrap().value, negotiation_with("n", "p"));
    assert_eq!(store.outbox_all().await.unwrap(), vec![message("m", at(0))]);
    assert_eq!(store.next_wake().await.unwrap(), Some(at(7)));
    let again = store.commit(Batch::new(at(1)).taking(use_of("a", "u", "", Some(1)))).await;
    assert!(matches!(again, Err(StoreError::UseExhausted { .. })));
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(dir.path()).unwrap_err();
    let holder = std::process::id().to_string();
    assert_eq!(second, StoreError::Locked { path: dir.path().to_owned(), holder: holder.clone() });
    assert!(second.to_string().contains(&holder), "{second}");
    let clone = store.clone();
    drop(store);
    assert!(Store::open(dir.path()).is_err(), "a clone still has it");
    drop(clone);
    open(dir.path());
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join(DATABASE_FILE);
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 999").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Newer { found: 999, .. }), "{error}");
    assert!(error.to_string().contains("newer kontor"), "{error}");
}

#[tokio::test]
async fn an_older_database_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let older = rusqlite::Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    older.execute_batch(include_str!("migrations/1.sql")).unwrap();
    older.execute_batch(include_str!("migrations/2.sql")).unwrap();
    let entry = serde_json::to_string(&message("m", at(3))).unwrap();
    let told = serde_json::to_string(&line("n", "told")).unwrap();
    older
        .execute_batch(&format!(
            "INSERT INTO outbox VALUES (4, 'm', 1, 0, 0, '{entry}', 'n', 3);
             INSERT INTO use_taken VALUES (1, 'u', 1, 0, 0, '{{}}', 'a'), (2, 'v', 1, 0, 0, '{{}}', 'a');
             INSERT INTO audit VALUES (7, NULL, 1, 0, 0, '{told}', 'n', NULL, 'them', 'told');
             PRAGMA user_version = 2"
        ))
        .unwrap();
    drop(older);
    let store = open(dir.path());
    assert_eq!(store.outbox_all().await.unwrap(), vec![message("m", at(3))]);
    assert_eq!(store.uses(&agreement_id("a")).await.unwrap(), 2);
    store.commit(Batch::new(at(1)).recording(line("n", "after"))).await.unwrap();
    let of = AuditFilter { process: Some(pid("n")), ..AuditFilter::default() };
    let lines = store.audit(&of, &Page::default()).await.unwrap().items;
    let lines: Vec<_> = lines.into_iter().map(|line| (line.seq, line.record.event)).collect();
    assert_eq!(lines, [(8, "after".to_owned()), (7, "told".to_owned())]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(DATABASE_FILE), "not a database, but long enough to look at: ".repeat(50)).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what: "database", .. }), "{error}");
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open(&data);
    store.commit(Batch::new(at(0)).recording(line("n", "made"))).await.unwrap();
    for entry in std::fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", entry.path().display());
    }
}

#[tokio::test]
async fn full_sync_and_the_log_are_on() {
    let dir = tempfile::tempdir().unwrap();
    let Store::Sql(store) = open(dir.path()) else { panic!("SQLite was asked for") };
    let pragma = |name: &'static str| {
        let store = store.clone();
        async move {
            let read = move |connection: &rusqlite::Connection| {
                connection
                    .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
                    .unwrap()
            };
            store.run_on_writer(read).await.unwrap()
        }
    };
    assert_eq!(pragma("journal_mode").await, rusqlite::types::Value::Text("wal".to_owned()));
    assert_eq!(pragma("synchronous").await, rusqlite::types::Value::Integer(2));
    assert_eq!(pragma("foreign_keys").await, rusqlite::types::Value::Integer(1));
    assert_eq!(pragma("mmap_size").await, rusqlite::types::Value::Integer(0));
}

/// Duties that are settled stay, so what is due must not be looked for among them.
#[tokio::test]
async fn what_is_due_is_found_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let Store::Sql(store) = open(dir.path()) else { panic!("SQLite was asked for") };
    let due = Filter::default().due("next_attempt", at(0));
    let (due, _) = sql::selection::<DutyRecord>(&due, &sql::oldest_first(&due), 10);
    let wakes = Filter::default().due("at", at(0));
    let (wakes, _) = sql::selection::<WakeRecord>(&wakes, &sql::oldest_first(&wakes), 10);
    for (statement, index) in [
        (due, "duty_by_next_attempt"),
        (sql::least_of::<DutyRecord>("next_attempt"), "duty_by_next_attempt"),
        (wakes, "wake_by_time"),
        (sql::least_of::<WakeRecord>("at"), "wake_by_time"),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan = store.run_on_writer(move |connection| {
            let mut plan = connection.prepare(&explain).unwrap();
            let values = vec![rusqlite::types::Value::Integer(1); plan.parameter_count()];
            let lines = plan.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
            lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
        });
        let plan = plan.await.unwrap();
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{statement}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_what_does_not_fit_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let Store::Sql(sql) = open(dir.path()) else { panic!("SQLite was asked for") };
    let store = Store::Sql(sql.clone());
    let limit_pages = |pages: i64| {
        let sql = sql.clone();
        async move {
            let set = move |connection: &rusqlite::Connection| {
                let used: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
                connection.query_row(&format!("PRAGMA max_page_count = {}", used + pages), [], |_| Ok(())).unwrap();
            };
            sql.run_on_writer(set).await.unwrap();
        }
    };
    limit_pages(20).await;
    let huge = |id: &str| OutboxEntry { body: "x".repeat(1 << 20), ..message(id, at(0)) };
    // A large one among small ones, so that they meet in one transaction.
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            let batch = if number == 10 {
                Batch::new(at(0)).recording(line("n", "huge")).sending(huge("huge"))
            } else {
                Batch::new(at(0)).recording(line("n", "small"))
            };
            tokio::spawn(async move { (number, store.commit(batch).await) })
        })
        .collect();
    for task in tasks {
        let (number, result) = task.await.unwrap();
        match result {
            Ok(_) => assert_ne!(number, 10),
            Err(error) => {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                assert_eq!(number, 10);
            }
        }
    }
    let lines = store.audit(&AuditFilter::default(), &Page::default()).await.unwrap().items;
    assert_eq!(lines.len(), 19);
    assert_eq!(store.outbox_all().await.unwrap(), Vec::new());
    // Room again: it goes on.
    limit_pages(10_000).await;
    store.commit(Batch::new(at(0)).sending(huge("huge"))).await.unwrap();
    assert_eq!(store.outbox_all().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let Store::Sql(sql) = open(dir.path()) else { panic!("SQLite was asked for") };
    let store = Store::Sql(sql.clone());
    store.commit(Batch::new(at(0)).with_dataset(dataset("d"), Expect::New)).await.unwrap();
    sql.run_on_writer(|connection| connection.execute("UPDATE dataset SET body = '{}'", []).unwrap()).await.unwrap();
    let error = store.dataset(&dataset_id("d")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what: "dataset", id, .. } if id == "d"), "{error}");
}

/// Prints what a commit costs here: `cargo test --release -p kontor commit_rate -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, proves nothing"]
async fn commit_rate() {
    // Where the package is, not in /tmp, which may have no disk below it.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let store = open(dir.path());
    for in_flight in [1_usize, 16] {
        let per_task = 2000 / in_flight;
        let begun = Instant::now();
        let tasks: Vec<_> = (0..in_flight)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut took = Vec::with_capacity(per_task);
                    for number in 0..per_task {
                        let name = format!("{in_flight}-{task}-{number}");
                        let batch = Batch::new(at(0))
                            .with_negotiation(negotiation_with(&name, &name), 0)
                            .with_agreement(agreement(&name, &name, AgreementState::Pending))
                            .sending(message(&name, at(0)))
                            .recording(line(&name, "negotiation.agreed"));
                        let begun = Instant::now();
                        store.commit(batch).await.unwrap();
                        took.push(begun.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.unwrap());
        }
        let elapsed = begun.elapsed();
        took.sort_unstable();
        let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
        let rate = took.len() as f64 / elapsed.as_secs_f64();
        println!("{in_flight:>2} in flight: p50 {:?}, p99 {:?}, {rate:.0} commits/s", at(50), at(99));
    }
    let begun = Instant::now();
    for number in 0..2000 {
        store.negotiation(&pid(&format!("1-0-{number}"))).await.unwrap().unwrap();
    }
    println!("read: {:?} each", begun.elapsed() / 2000);
}
