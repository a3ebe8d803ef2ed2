//! Tables: what goes in, under which terms, and what comes out, wherever the pieces are cut.

use kontor_core::policy::permit::{FieldPath, StreamTerms, Transform};
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;

const LIMIT: usize = 4_096;
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";

fn field(text: &str) -> FieldPath {
    text.parse().unwrap()
}

fn fields(names: &[&str]) -> Vec<FieldPath> {
    names.iter().map(|name| field(name)).collect()
}

fn keep(names: &[&str]) -> Transform {
    Transform::Keep { fields: fields(names) }
}

fn omit(names: &[&str]) -> Transform {
    Transform::Drop { fields: fields(names) }
}

fn replace(name: &str, with: &str) -> Transform {
    Transform::Replace { field: field(name), with: with.to_owned() }
}

fn hash(name: &str) -> Transform {
    Transform::Hash { field: field(name) }
}

fn round(name: &str, to: &str) -> Transform {
    Transform::Round { field: field(name), to: to.parse().unwrap() }
}

fn add(name: &str, by: &str) -> Transform {
    Transform::Add { field: field(name), by: by.parse().unwrap() }
}

fn multiply(name: &str, by: &str) -> Transform {
    Transform::Multiply { field: field(name), by: by.parse().unwrap() }
}

fn terms(transforms: &[Transform]) -> StreamTerms {
    StreamTerms { transforms: transforms.to_vec(), ..StreamTerms::default() }
}

fn key() -> PseudonymKey {
    PseudonymKey::derive(b"secret", &AgreementId::parse("urn:agreement:1").unwrap())
}

/// Feeds pieces of the given sizes, and takes out after every few bytes.
fn run_in(
    terms: &StreamTerms,
    media_type: &str,
    input: &[u8],
    sizes: &[usize],
    enough: usize,
) -> Result<(Vec<u8>, u64), StageError> {
    let mut stage = Stage::new(terms, media_type, Some(key()), LIMIT)?;
    let (mut all, mut rest, mut sizes) = (Vec::new(), input, sizes.iter().cycle());
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        rest = after;
        loop {
            let mut out = Vec::new();
            let (taken, progress) = stage.push(piece, &mut out, enough)?;
            all.extend(out);
            piece = piece.get(taken..).unwrap();
            match progress {
                Progress::Done => break,
                Progress::Full => {}
                Progress::NoRecordsLeft => stage.allow(1),
            }
        }
    }
    while stage.finish(&mut all)? == Progress::NoRecordsLeft {
        stage.allow(1);
    }
    Ok((all, stage.records()))
}

fn run(transforms: &[Transform], media_type: &str, input: &str) -> Result<String, StageError> {
    let (out, _) = run_in(&terms(transforms), media_type, input.as_bytes(), &[usize::MAX], usize::MAX)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_table_leaves_with_what_its_terms_leave() {
    let ships = "id,name,length\n1,\"Ann, \"\"the\"\" first\",12.40\n2,Bo,\n";
    let table: &[(&[Transform], &str, &str)] = &[
        (&[], ships, ships),
        (&[keep(&["id", "length"])], ships, "id,length\n1,12.40\n2,\n"),
        (&[keep(&["id", "not there"])], ships, "id\n1\n2\n"),
        (&[omit(&["name"])], ships, "id,length\n1,12.40\n2,\n"),
        (&[replace("name", "a, b")], ships, "id,name,length\n1,\"a, b\",12.40\n2,\"a, b\",\n"),
        (&[round("length", "5")], ships, "id,name,length\n1,\"Ann, \"\"the\"\" first\",10\n2,Bo,\n"),
        (&[add("length", "0.1"), omit(&["name"])], ships, "id,length\n1,12.5\n2,\n"),
        (&[multiply("length", "-2"), keep(&["length"])], ships, "length\n-24.8\n\"\"\n"),
        // A field that is not sent need not be there to be hidden.
        (&[keep(&["id"]), omit(&["captain"]), hash("owner")], ships, "id\n1\n2\n"),
        (&[omit(&["b"])], "\u{feff}a,b\r\n1,2\r\n", "a\r\n1\r\n"),
        (&[omit(&["a"])], "\u{feff}\"a\",b\n1,2\n", "b\n2\n"),
        (&[omit(&["b"])], "a,b\n1,2", "a\n1"),
        (&[omit(&["b"])], "a,b\n1,2\n\n", "a\n1\n"),
        (&[omit(&["b"])], "a,b\n\"x\ny\",2\n", "a\n\"x\ny\"\n"),
        (&[omit(&["b"])], "a,b,b\n1,2,3\n", "a\n1\n"),
        (&[omit(&["b"])], "a,b\n", "a\n"),
    ];
    for (transforms, input, output) in table {
        assert_eq!(run(transforms, CSV, input).as_deref(), Ok(*output), "{transforms:?} of {input:?}");
    }
}

#[test]
fn lines_leave_with_what_their_terms_leave() {
    let line = r#"{"id":1e2, "who":{"name":"Ann","born":1.50}, "x":[1, 2]}"#;
    let table: &[(&[Transform], &str, &str)] = &[
        (&[keep(&["id", "x"])], line, r#"{"id":1e2,"x":[1, 2]}"#),
        (&[keep(&["$.who.born", "none"])], line, r#"{"who":{"born":1.50}}"#),
        (&[keep(&["$.x.y"])], line, "{}"),
        (&[omit(&["$.who.name"])], line, r#"{"id":1e2,"who":{"born":1.50},"x":[1, 2]}"#),
        (&[omit(&["who"])], line, r#"{"id":1e2,"x":[1, 2]}"#),
        (&[keep(&["who"]), omit(&["$.who.born"])], line, r#"{"who":{"name":"Ann"}}"#),
        (&[replace("x", "\"no\""), keep(&["x"])], line, r#"{"x":"\"no\""}"#),
        (&[add("id", "0.5"), keep(&["id"])], line, r#"{"id":100.5}"#),
        (&[round("$.who.born", "1"), keep(&["who"])], line, r#"{"who":{"name":"Ann","born":2}}"#),
        (&[round("a", "1")], r#"{"a":null}"#, r#"{"a":null}"#),
        // One name twice, and one written with an escape: every one is meant.
        (&[omit(&["name"])], r#"{"name":1,"n\u0061me":2,"z":3}"#, r#"{"z":3}"#),
        (&[omit(&["a"])], "{\"a\":1}\r\n\r\n{\"a\":2,\"b\":3}\n", "{}\r\n{\"b\":3}\n"),
    ];
    for (transforms, input, output) in table {
        assert_eq!(run(transforms, NDJSON, input).as_deref(), Ok(*output), "{transforms:?} of {input:?}");
    }
}

#[test]
fn what_cannot_be_changed_soundly_ends_the_stream() {
    let record = Place::Record;
    let missing = |at, name| StageError::Missing { at, field: field(name) };
    let kind = |name, wanted| StageError::Kind { at: record(1), field: field(name), wanted };
    let malformed = |at, why| StageError::Malformed { at, why };
    let deep = format!("{{\"a\":{}}}", "[".repeat(200));
    let big = "9".repeat(40);
    let big = format!("a\n{big}\n");
    let table: &[(&[Transform], &str, &str, StageError)] = &[
        (&[omit(&["Name"])], CSV, "id,name\n", missing(Place::Header, "Name")),
        (&[hash("c")], CSV, "a,b\n1,2\n", missing(Place::Header, "c")),
        (&[keep(&["c"])], CSV, "a,b\n1,2\n", StageError::NothingLeft { at: Place::Header }),
        (&[omit(&["a"])], CSV, "a\n1\n", StageError::NothingLeft { at: Place::Header }),
        (&[omit(&["a"])], CSV, "", malformed(Place::Header, "the table has no header row")),
        (
            &[omit(&["a"])],
            CSV,
            "a,b\n1,2\n1,2,3\n",
            malformed(record(2), "it has another number of fields than the header row"),
        ),
        (&[omit(&["a"])], CSV, "a,b\n1\n", malformed(record(1), "it has another number of fields than the header row")),
        (&[omit(&["a"])], CSV, "a,b\n1,x\"y\"\n", malformed(record(1), "a quote stands in a field that is not quoted")),
        (&[omit(&["a"])], CSV, "a,b\n1,\"x\"y\n", malformed(record(1), "something follows the end of a quoted field")),
        (&[omit(&["a"])], CSV, "a,b\n1,\"x\n2,y\n", malformed(record(1), "a quoted field has no end")),
        (&[omit(&["a"])], CSV, "a,b\n1,x\r2,y\n", malformed(record(1), "a carriage return has no line feed after it")),
        (&[add("a", "1")], CSV, "a\n12 \n", kind("a", "number")),
        (&[add("a", "1")], CSV, "a\n1_000\n", kind("a", "number")),
        (&[add("a", "1")], CSV, &big, kind("a", "number")),
        (
            &[multiply("a", "0.00000000000001")],
            CSV,
            "a\n0.123456789012345678\n",
            StageError::Inexact { at: record(1), field: field("a") },
        ),
        (
            &[add("a", "0.00000000000001")],
            CSV,
            "a\n79228162514264337593543950335\n",
            StageError::Inexact { at: record(1), field: field("a") },
        ),
        (&[omit(&["a"])], NDJSON, "{\"a\":1}\n{\"b\":1}\n", missing(record(2), "a")),
        (&[omit(&["$.a.b"])], NDJSON, "{\"a\":[{\"b\":1}]}\n", missing(record(1), "$.a.b")),
        (&[hash("a")], NDJSON, "{\"a\":[1]}", kind("a", "text or number")),
        (&[add("a", "1")], NDJSON, "{\"a\":\"1\"}", kind("a", "number")),
        (&[add("a", "1")], NDJSON, "{\"a\":true}", kind("a", "number")),
        (&[omit(&["a"])], NDJSON, "[1]\n", malformed(record(1), "it is not a JSON object")),
        (&[omit(&["a"])], NDJSON, "{\"a\":1} {}\n", malformed(record(1), "it is not a JSON object")),
        (&[omit(&["a"])], NDJSON, "{\"a\":1", malformed(record(1), "it is not a JSON object")),
        (&[omit(&["b"])], NDJSON, &deep, malformed(record(1), "it is not a JSON object")),
    ];
    for (transforms, media_type, input, error) in table {
        let found = run(transforms, media_type, input).unwrap_err();
        assert_eq!(&found, error, "{transforms:?} of {input:?}");
    }
    let latin = run_in(&terms(&[omit(&["a"])]), NDJSON, b"{\"a\":\"\xff\"}", &[1], 1).unwrap_err();
    assert_eq!(latin, malformed(record(1), "it is not UTF-8"));
    let latin = run_in(&terms(&[omit(&["a"])]), CSV, b"a,\xff\n", &[1], 1).unwrap_err();
    assert_eq!(latin, malformed(Place::Header, "it is not UTF-8"));
}

#[test]
fn an_error_never_shows_a_value() {
    for (media_type, input) in [(CSV, "a\nsecret\n"), (NDJSON, "{\"a\":\"secret\"}\n"), (NDJSON, "{\"secret\":}")] {
        let error = run(&[add("a", "1")], media_type, input).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    assert_eq!(format!("{:?}", key()), "PseudonymKey(…)");
}

#[test]
fn what_no_stage_can_do_is_refused_before_the_first_byte() {
    let refused =
        |transforms: &[Transform], media_type| Stage::new(&terms(transforms), media_type, None, LIMIT).unwrap_err();
    let plain = &[omit(&["a"])][..];
    assert_eq!(refused(plain, "application/vnd.apache.parquet"), StageError::Parquet);
    for other in ["application/json", "text/plain; charset=utf-8", "application/gzip", ""] {
        assert_eq!(refused(plain, other), StageError::NotRecords { media_type: other.to_owned() });
    }
    for (other, parameter) in
        [("text/csv; header=absent", "header=absent"), ("text/csv;charset=ISO-8859-1", "charset=iso-8859-1")]
    {
        assert_eq!(refused(plain, other), StageError::Parameter { parameter: parameter.to_owned() });
    }
    assert!(Stage::new(&terms(plain), "Text/CSV; charset=\"UTF-8\"; header=present", None, LIMIT).is_ok());
    assert_eq!(refused(&[omit(&["$.a.b"])], CSV), StageError::Nested { field: field("$.a.b") });
    assert_eq!(refused(&[hash("a")], CSV), StageError::NoKey { field: field("a") });
    assert_eq!(refused(&[hash("a")], NDJSON), StageError::NoKey { field: field("a") });
    assert!(matches!(refused(&[hash("a"), replace("a", "x")], CSV), StageError::Terms(_)));
}

#[test]
fn a_record_longer_than_the_limit_is_refused_as_it_comes_and_as_it_leaves() {
    let too_long = |at| StageError::TooLong { at, limit: LIMIT };
    let long = "x".repeat(LIMIT);
    for (media_type, input, at) in [
        (CSV, format!("a,b\n{long},2\n"), Place::Record(1)),
        (CSV, format!("a,{long}\n"), Place::Header),
        (NDJSON, format!("{{\"a\":\"{long}\"}}"), Place::Record(1)),
    ] {
        for sizes in [&[1][..], &[usize::MAX]] {
            let error = run_in(&terms(&[omit(&["a"])]), media_type, input.as_bytes(), sizes, 1).unwrap_err();
            assert_eq!(error, too_long(at));
        }
    }
    // A short row with many columns of one name, each to be replaced with a long text.
    let (header, row) = (vec!["a"; 100].join(","), ",".repeat(99));
    let error = run(&[replace("a", &"y".repeat(1_000))], CSV, &format!("{header}\n{row}\n")).unwrap_err();
    assert_eq!(error, too_long(Place::Record(1)));
}

#[test]
fn pseudonyms_are_equal_within_an_agreement_and_unlinkable_between_two() {
    let input = "who,n\nAnn,1\nBo,2\nAnn,3\n";
    let out = |key: PseudonymKey| {
        let mut stage = Stage::new(&terms(&[hash("who")]), CSV, Some(key), LIMIT).unwrap();
        let mut out = Vec::new();
        stage.push(input.as_bytes(), &mut out, usize::MAX).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let other = PseudonymKey::derive(b"secret", &AgreementId::parse("urn:agreement:2").unwrap());
    let (one, two) = (out(key()), out(other));
    assert_eq!(one.first(), one.get(2));
    assert_ne!(one.first(), one.get(1));
    assert!(one.iter().all(|name| name.len() == 32 && !two.contains(name)));
    assert_eq!(one, out(key()), "the same again, so that a stream that is begun again is the same stream");
    let json = run(&[hash("who")], NDJSON, r#"{"who":"Ann"}"#).unwrap();
    assert!(json.contains(one.first().unwrap()), "the same value has the same pseudonym in every format");
}

#[test]
fn no_record_leaves_without_leave() {
    let terms = StreamTerms { records_max: Some(2), ..StreamTerms::default() };
    for (media_type, input, whole) in [(CSV, "a\n1\n2\n3\n", "a\n1\n2\n"), (NDJSON, "{}\n\n{}\n{}", "{}\n{}\n")] {
        let mut stage = Stage::new(&terms, media_type, None, LIMIT).unwrap();
        let (mut out, input) = (Vec::new(), input.as_bytes());
        let (mut taken, mut allowed) = (0, 0);
        loop {
            let (more, progress) = stage.push(&input[taken..], &mut out, usize::MAX).unwrap();
            taken += more;
            match progress {
                Progress::NoRecordsLeft if allowed < 2 => {
                    stage.allow(1);
                    allowed += 1;
                }
                Progress::NoRecordsLeft | Progress::Done => break,
                Progress::Full => unreachable!(),
            }
        }
        assert_eq!(stage.finish(&mut out).unwrap(), Progress::NoRecordsLeft);
        assert_eq!((String::from_utf8(out).unwrap().as_str(), stage.records()), (whole, 2));
    }
}

#[test]
fn an_entity_tag_changes_with_what_is_sent() {
    let tag = |source: &str, transforms: &[Transform], key: Option<&PseudonymKey>| {
        entity_tag(source, &terms(transforms), key)
    };
    let one = tag("\"s\"", &[omit(&["a"])], None);
    assert_eq!(one, tag("\"s\"", &[omit(&["a"]), omit(&["a"])], None));
    let others = [
        tag("\"t\"", &[omit(&["a"])], None),
        tag("\"s\"", &[omit(&["b"])], None),
        tag("\"s\"", &[omit(&["a"])], Some(&key())),
        tag("\"s\"", &[], None),
    ];
    assert!(others.iter().all(|other| *other != one && other.len() == 34));
}

fn transforms() -> impl Strategy<Value = Vec<Transform>> {
    let one = prop_oneof![
        Just(keep(&["a", "b"])),
        Just(omit(&["a"])),
        Just(replace("b", "x\"y,z")),
        Just(hash("c")),
        Just(Transform::Round { field: field("b"), to: Decimal::ONE }),
        Just(omit(&["$.a.b"])),
    ];
    prop::collection::vec(one, 0..3)
}

fn table() -> impl Strategy<Value = String> {
    let cell = prop_oneof![Just("1.5".to_owned()), Just(String::new()), Just("\"q\"\"\n,\"".to_owned()), "[a-z]{0,4}"];
    let row = prop::collection::vec(cell, 3).prop_map(|cells| cells.join(","));
    (prop::collection::vec(row, 0..6), prop_oneof![Just("\n"), Just("\r\n")], any::<bool>()).prop_map(
        |(rows, end, last)| {
            let mut text = ["a,b,c".to_owned()].into_iter().chain(rows).collect::<Vec<_>>().join(end);
            if last {
                text.push_str(end);
            }
            text
        },
    )
}

fn lines() -> impl Strategy<Value = String> {
    let value = prop_oneof![Just("1"), Just("\"é\""), Just("null"), Just("{\"b\":2}"), Just("[{}]")];
    let line =
        prop::collection::vec((prop::sample::select(vec!["a", "b", "c", "d"]), value), 0..5).prop_map(|members| {
            let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            format!("{{{}}}\n", members.join(","))
        });
    prop::collection::vec(line, 0..5).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn where_a_piece_ends_changes_nothing(
        (media_type, input) in prop_oneof![
            table().prop_map(|text| (CSV, text.into_bytes())),
            lines().prop_map(|text| (NDJSON, text.into_bytes())),
            prop::collection::vec(prop::sample::select(b"ab,\"\r\n{}:1\xef\xbb\xbf".to_vec()), 0..40).prop_map(|bytes| (CSV, bytes)),
            prop::collection::vec(prop::sample::select(b"ab,\"\r\n{}:1\xc3".to_vec()), 0..40).prop_map(|bytes| (NDJSON, bytes)),
        ],
        transforms in transforms(),
        sizes in prop::collection::vec(1..9_usize, 1..4),
        enough in 1..30_usize,
        limited: bool,
    ) {
        let terms = StreamTerms { records_max: limited.then_some(9), ..terms(&transforms) };
        let whole = run_in(&terms, media_type, &input, &[usize::MAX], usize::MAX);
        prop_assert_eq!(run_in(&terms, media_type, &input, &sizes, enough), whole);
    }

    #[test]
    fn a_table_that_was_changed_is_a_table_without_what_was_dropped(text in table()) {
        let out = run(&[omit(&["b"])], CSV, &text).unwrap();
        prop_assert!(out.starts_with("a,c"));
        let (one, other) = (run(&[keep(&["a"])], CSV, &text).unwrap(), run(&[keep(&["a"])], CSV, &out).unwrap());
        prop_assert_eq!(one, other, "what is left is unchanged, and reads the same again");
    }
}
