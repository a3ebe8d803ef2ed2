//! What an agreement's terms make of a flow: changed records, a quantity, a rate, a time to wait for.

use kontor_core::policy::{Rate, Transform};

use super::*;

fn drop_owner() -> StreamTerms {
    StreamTerms {
        transforms: vec![Transform::Drop { fields: vec!["owner".parse().unwrap()] }],
        ..StreamTerms::default()
    }
}

fn ships(rows: usize) -> (String, String) {
    let rows = |row: fn(usize) -> String| (0..rows).map(row).collect::<String>();
    let whole = format!("id,owner,name\n{}", rows(|n| format!("{n},secret{n},\"ship, {n}\"\n")));
    (whole, format!("id,name\n{}", rows(|n| format!("{n},\"ship, {n}\"\n"))))
}

impl World {
    /// A grant of one file under terms.
    fn under(&self, content: &str, terms: StreamTerms) -> GrantSpec {
        fs::write(self.source("ships.csv"), content).unwrap();
        let source = SourceSpec::File { path: self.source("ships.csv").display().to_string() };
        let spec = GrantSpec { terms, ..self.spec(source) };
        self.grants.open(spec.clone());
        spec
    }

    fn taken(&self) -> Amount {
        let taken = Mutex::lock(&self.taken).unwrap();
        taken.values().fold(Amount::default(), |all, one| Amount {
            bytes: all.bytes + one.bytes,
            records: all.records + one.records,
        })
    }
}

/// What came of a body, and whether it ended whole.
async fn received(response: Response) -> (Vec<u8>, bool) {
    let (mut body, mut all) = (response.into_body(), Vec::new());
    loop {
        match body.frame().await {
            None => return (all, true),
            Some(Err(_)) => return (all, false),
            Some(Ok(frame)) => all.extend(frame.into_data().unwrap()),
        }
    }
}

#[tokio::test]
async fn a_changed_table_arrives_and_both_sides_count_what_was_sent() {
    let wired = Wired::plain().await;
    let (whole, sent) = ships(2_000);
    wired.world.under(&whole, drop_owner());
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert_eq!(outcome.result, done(sent.as_bytes()), "{outcome:?}");
    let report = wired.world.reports(1).await.remove(0);
    assert_eq!((report.bytes, report.outcome), (sent.len() as u64, FlowOutcome::Whole));
    assert_eq!(report.digest_blake3, hex(sent.as_bytes()));
    assert_eq!(outcome.reports[0].peer_digest.as_deref(), Some(hex(sent.as_bytes()).as_str()));
    assert!(!String::from_utf8(fs::read(wired.sink().join("got")).unwrap()).unwrap().contains("secret"));
}

#[tokio::test]
async fn a_changed_stream_has_its_own_version_no_length_and_no_ranges() {
    let world = World::new();
    let (whole, sent) = ships(10);
    world.under(&whole, StreamTerms::default());
    let plain = header(&world.get(&[]).await, "etag").to_owned();
    world.under(&whole, drop_owner());
    let head = world.get(&[("head", "")]).await;
    let etag = header(&head, "etag").to_owned();
    assert_ne!(etag, plain);
    assert_eq!(header(&head, "accept-ranges"), "none");
    assert!(!head.headers().contains_key("content-length"), "it shows at the end only");
    let resumed = world.get(&[("range", "bytes=5-"), ("if-range", &etag)]).await;
    assert_eq!((resumed.status(), header(&resumed, "etag")), (StatusCode::OK, etag.as_str()));
    assert_eq!(received(resumed).await, (sent.into_bytes(), true));
    let other = world.get(&[("if-match", &plain)]).await;
    assert_eq!(other.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_changed_stream_that_is_cut_never_looks_whole_and_begins_again() {
    let wired = Wired::new(
        |grants| {
            let grants = Arc::clone(grants);
            Arc::new(move |segment| {
                if segment == 3 {
                    grants.stop(&transfer(), StopKind::Suspended, "pause");
                }
            })
        },
        false,
    )
    .await;
    let (whole, sent) = ships(20_000);
    let spec = wired.world.under(&whole, drop_owner());
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert!(matches!(outcome.result, PullResult::Stopped { .. }), "{outcome:?}");
    assert!(!wired.sink().join("got").exists());
    assert!(matches!(wired.world.reports(1).await[0].outcome, FlowOutcome::Cut { .. }));
    wired.world.grants.open(spec);
    let again = wired.pull(to_file(), unstopped()).await;
    assert_eq!(again.result, done(sent.as_bytes()), "{again:?}");
    assert_eq!(again.reports.last().unwrap().offset, 0, "from the start");
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused_or_cut_and_then_refused() {
    let wired = Wired::plain().await;
    let (whole, _) = ships(3_000);
    let spec = wired.world.under(&whole, drop_owner());
    wired.world.grants.open(GrantSpec { media_type: "application/vnd.apache.parquet".to_owned(), ..spec.clone() });
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert!(matches!(&outcome.result, PullResult::Failed { retryable: false, reason } if reason.contains("Parquet")));
    assert_eq!(wired.world.openings.load(Ordering::SeqCst), 0, "no use is taken");

    wired.world.under(&format!("{whole}1,2\n"), drop_owner());
    let outcome = wired.pull(to_file(), unstopped()).await;
    let why = "record 3001 is malformed: it has another number of fields than the header row";
    assert!(
        matches!(&outcome.result, PullResult::Failed { retryable: false, reason } if reason.contains(why)),
        "{outcome:?}"
    );
    let reports = wired.world.reports(1).await;
    assert!(matches!(&reports[0].outcome, FlowOutcome::Failed { reason } if reason == why), "{reports:?}");
    assert!(!wired.sink().join("got").exists());
}

#[tokio::test]
async fn parallel_flows_never_have_more_than_the_quantity_together() {
    let world = World::new();
    let most = 5 * SEGMENT as u64 + 7;
    let (spec, content) = world.file(SEGMENT * 4);
    world.grants.open(GrantSpec { terms: StreamTerms { bytes_max: Some(most), ..StreamTerms::default() }, ..spec });
    let (one, two) = (world.get(&[]).await, world.get(&[]).await);
    let (one, two) = tokio::join!(received(one), received(two));
    let reports = world.reports(2).await;
    let sent: u64 = reports.iter().map(|report| report.bytes).sum();
    assert!(sent <= most && (one.0.len() + two.0.len()) as u64 == sent, "{sent} of {most}");
    for (came, whole) in [&one, &two] {
        assert!(content.starts_with(came) && *whole == (came.len() == content.len()));
    }
    assert!(!one.1 || !two.1, "both are more than the quantity");
    let cut = reports.iter().find(|report| report.outcome != FlowOutcome::Whole).unwrap();
    assert!(matches!(&cut.outcome, FlowOutcome::Cut { reason } if reason.contains("quantity")), "{cut:?}");
    // What was taken and not used is given back, to the byte: the rest comes, and then nothing.
    assert_eq!(world.taken().bytes, sent);
    let (rest, _) = if sent < most { received(world.get(&[]).await).await } else { (Vec::new(), false) };
    assert_eq!(sent + rest.len() as u64, most);
    let flows = usize::from(sent < most) + 2;
    world.reports(flows).await;
    let refused = world.get(&[]).await;
    assert_eq!((refused.status(), header(&refused, STOP_HEADER)), (StatusCode::FORBIDDEN, "quota-exhausted"));
    assert_eq!(world.openings.load(Ordering::SeqCst), flows as u64, "what is refused takes no use");
}

#[tokio::test]
async fn a_quantity_that_ends_within_the_last_segment_is_a_cut() {
    let world = World::new();
    let (spec, content) = world.file(SEGMENT * 2);
    let terms = StreamTerms { bytes_max: Some(content.len() as u64 - 1), ..StreamTerms::default() };
    world.grants.open(GrantSpec { terms, ..spec.clone() });
    let (came, whole) = received(world.get(&[]).await).await;
    assert_eq!((came.len(), whole), (content.len() - 1, false));
    assert!(matches!(world.reports(1).await[0].outcome, FlowOutcome::Cut { .. }));

    let world = World::new();
    let (spec, content) = world.file(SEGMENT * 2);
    let terms = StreamTerms { bytes_max: Some(content.len() as u64), ..StreamTerms::default() };
    world.grants.open(GrantSpec { terms, ..spec });
    assert_eq!(received(world.get(&[]).await).await, (content, true), "exactly enough is enough");
    assert_eq!(world.reports(1).await[0].outcome, FlowOutcome::Whole);
}

#[tokio::test]
async fn no_more_records_leave_than_the_agreement_allows() {
    let world = World::new();
    let (whole, _) = ships(10);
    world.under(&whole, StreamTerms { records_max: Some(7), ..StreamTerms::default() });
    let (came, all) = received(world.get(&[]).await).await;
    let came = String::from_utf8(came).unwrap();
    assert_eq!((came.lines().count(), all), (8, false), "the header row, and seven: {came}");
    assert!(matches!(world.reports(1).await[0].outcome, FlowOutcome::Cut { .. }));
    assert_eq!(world.taken().records, 7);
    assert_eq!(header(&world.get(&[]).await, STOP_HEADER), "quota-exhausted");
}

#[tokio::test]
async fn all_flows_of_an_agreement_share_its_rate() {
    let world = World::new();
    let rate = Rate::new(SEGMENT as u64, SignedDuration::from_secs(1_000_000_000));
    let (spec, _) = world.file(SEGMENT * 2);
    let spec = GrantSpec { terms: StreamTerms { rate, ..StreamTerms::default() }, ..spec };
    world.grants.open(spec.clone());
    let (mut one, mut two) = (world.get(&[]).await.into_body(), world.get(&[]).await.into_body());
    let mut came = 0;
    while came < SEGMENT {
        came += one.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    for stream in [&mut one, &mut two] {
        let more = tokio::time::timeout(Duration::from_millis(50), stream.frame()).await;
        assert!(more.is_err(), "a byte more than the rate lets");
    }
    world.grants.stop(&transfer(), StopKind::Suspended, "pause");
    for mut stream in [one, two] {
        assert!(stream.frame().await.unwrap().is_err(), "a flow that waits for its rate is cut all the same");
    }
    let sent: u64 = world.reports(2).await.iter().map(|report| report.bytes).sum();
    assert_eq!(sent, SEGMENT as u64);
    // A transfer that is forgotten takes what it used of the rate with it for nobody.
    assert!(world.grants.forget(&transfer()));
    world.grants.open(spec);
    let mut again = world.get(&[]).await.into_body();
    assert!(tokio::time::timeout(Duration::from_millis(50), again.frame()).await.is_err(), "the rate began anew");
}

#[tokio::test]
async fn before_its_time_nothing_leaves_and_the_consumer_waits() {
    let world = World::new();
    let (spec, _) = world.file(SEGMENT);
    let from = |until| StreamTerms { not_before: Some(until), ..StreamTerms::default() };
    world.grants.open(GrantSpec { terms: from(Timestamp::now() + SignedDuration::from_hours(1)), ..spec.clone() });
    let refused = world.get(&[]).await;
    assert_eq!((refused.status(), header(&refused, STOP_HEADER)), (StatusCode::SERVICE_UNAVAILABLE, "not-yet"));
    assert!((3_500..=3_600).contains(&header(&refused, "retry-after").parse().unwrap()));
    assert!(problem(refused).await.1["detail"].as_str().unwrap().contains("before"));
    assert_eq!(world.openings.load(Ordering::SeqCst), 0);

    let wired = Wired::plain().await;
    let (spec, content) = wired.world.file(SEGMENT);
    let until = Timestamp::now() + SignedDuration::from_secs(1);
    wired.world.grants.open(GrantSpec { terms: from(until), ..spec });
    let outcome = wired.pull(to_file(), unstopped()).await;
    assert_eq!(outcome.result, done(&content), "{outcome:?}");
    assert!(wired.world.reports(1).await[0].started >= until);
}
