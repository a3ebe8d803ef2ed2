//! Every limit of the plane, set low and met.

use super::*;

#[tokio::test]
async fn beyond_the_flows_of_all_peers_one_more_is_asked_to_come_back() {
    let world = World::with(DataLimits { flows_max: 1, ..limits() });
    world.file(SEGMENT * 100);
    let first = world.get(&[]).await;
    assert_eq!(first.status(), StatusCode::OK);
    let refused = world.get(&[]).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    let (status, told) = problem(refused).await;
    assert_eq!((status, &told["type"]), (StatusCode::SERVICE_UNAVAILABLE, &"urn:kontor:problem:too-many-flows".into()));
    drop(first);
    world.reports(1).await;
    assert_eq!(world.get(&[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_flow_that_nobody_counts_in_time_does_not_begin() {
    let mut world = World::new();
    world.file(SEGMENT);
    // A control that takes every question and answers none.
    let (events, mut told) = mpsc::channel(8);
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(event) = told.recv().await {
            held.push(event);
        }
        held
    });
    let impatient = DataLimits { opening_timeout: Duration::from_millis(20), ..limits() };
    world.plane = ProviderPlane::new(Arc::clone(&world.grants), vec![world.source("")], impatient, events);
    let refused = world.get(&[]).await;
    assert_eq!(header(&refused, "retry-after"), "1");
    let (status, told) = problem(refused).await;
    assert_eq!((status, &told["type"]), (StatusCode::SERVICE_UNAVAILABLE, &"urn:kontor:problem:no-leave".into()));
    assert_eq!(world.grants.running(&transfer()), 0);
    held.abort();
}

#[tokio::test]
async fn only_the_latest_receipts_are_kept() {
    let world = World::with(DataLimits { receipts_max: 2, ..limits() });
    world.file(SEGMENT);
    let mut flows = Vec::new();
    for _ in 0..3 {
        let response = world.get(&[]).await;
        flows.push(format!("/flows/{}", header(&response, FLOW_HEADER)));
        body(response).await;
    }
    let (status, told) = problem(world.get_as(peer(CONSUMER, 1), &flows[0], &[]).await).await;
    assert_eq!((status, &told["type"]), (StatusCode::NOT_FOUND, &"urn:kontor:problem:no-receipt".into()));
    for flow in &flows[1..] {
        assert_eq!(world.get_as(peer(CONSUMER, 1), flow, &[]).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_directory_of_too_many_files_or_too_deep_is_not_listed() {
    // Three files and the directory that one of them is in.
    for (entries, depth, listed) in [(4, 1, true), (3, 1, false), (4, 0, false)] {
        let limits = DataLimits { directory_entries_max: entries, directory_depth_max: depth, ..limits() };
        let world = World::with(limits);
        fs::create_dir_all(world.source("tree/one")).unwrap();
        for name in ["a", "b", "one/c"] {
            fs::write(world.source("tree").join(name), "x").unwrap();
        }
        world.grants.open(world.spec(SourceSpec::Directory { path: world.source("tree").display().to_string() }));
        let response = world.get(&[]).await;
        if listed {
            assert_eq!(response.status(), StatusCode::OK);
            continue;
        }
        let (status, told) = problem(response).await;
        assert_eq!(
            (status, &told["type"]),
            (StatusCode::INTERNAL_SERVER_ERROR, &"urn:kontor:problem:too-many-files".into())
        );
        let words = format!("more than {entries} files, or directories more than {depth} deep");
        assert!(told["detail"].as_str().unwrap().contains(&words), "{told}");
    }
}
