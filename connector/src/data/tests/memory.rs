//! What a flow holds, however long it is.

use super::pump::{Extent, Measure, Pump, Through};
use super::*;

/// Sends a file of so many bytes to a reader that takes its time, and gives what the flow was.
async fn sent(bytes: usize) -> Measure {
    let world = World::new();
    let (spec, content) = world.file(bytes);
    let permit = world.grants.admit(&transfer(), Some(TOKEN), Some(&peer(CONSUMER, 1)), Timestamp::now()).unwrap();
    let roots = SourceRoots::new(vec![world.dir.path().join("source")]).unwrap();
    let source = roots.resolve(&spec.source).unwrap().open(None).unwrap();
    let extent = Extent { offset: 0, bytes: content.len() as u64 };
    let (done, measured) = tokio::sync::oneshot::channel();
    let told = move |measure| drop(done.send(measure));
    let through = Through { stage: None, quota: None };
    let mut pump = Pump::start(permit, source, extent, through, &limits(), Timestamp::now(), told);
    let mut held = std::collections::VecDeque::new();
    let mut received = blake3::Hasher::new();
    while let Some(frame) = pump.frame().await {
        let segment = frame.unwrap().into_data().unwrap();
        received.update(&segment);
        held.push_back(segment);
        // A transport holds a few segments until the peer has taken them.
        if held.len() > 4 {
            held.pop_front();
        }
        tokio::task::yield_now().await;
    }
    drop((held, pump));
    let measure = measured.await.unwrap();
    assert_eq!((measure.bytes, &measure.outcome), (bytes as u64, &FlowOutcome::Whole));
    assert_eq!(measure.digest_blake3, received.finalize().to_hex().to_string());
    measure
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_makes_no_more_buffers_the_longer_it_is() {
    // What is read ahead, what the transport holds, and one on its way between them.
    let most = limits().read_ahead_segments + 4 + 3;
    for segments in [20, 2000] {
        let buffers = sent(segments * SEGMENT).await.buffers;
        assert!(buffers <= most, "{buffers} buffers for {segments} segments, {most} are enough for any number");
    }
}
