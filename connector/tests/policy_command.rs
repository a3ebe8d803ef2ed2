//! `kontor policy …` as a process: what it prints, and with which exit code it ends.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TWO_USES: &str = r#"{
  "permission": [
    { "action": "use",
      "constraint": [
        { "leftOperand": "count", "operator": "lteq", "rightOperand": 2 }
      ] }
  ]
}
"#;

/// Runs `kontor policy …` with a text at the standard input.
fn kontor(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kontor"))
        .arg("policy")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The standard output of a run that ended with this code.
fn said(arguments: &[&str], input: &str, code: i32) -> String {
    let output = kontor(arguments, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    out.into_owned()
}

/// The standard error of a run that failed; each word is in it.
fn failed(arguments: &[&str], input: &str, words: &[&str]) {
    let output = kontor(arguments, input);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} passed");
    for word in words {
        assert!(err.contains(word), "`{word}` is not in: {err}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?} printed an answer too");
}

#[test]
fn a_good_policy_passes_with_what_is_enforced_when() {
    let text = said(&["check", "-"], TWO_USES, 0);
    for part in ["standard input: in order", "when a transfer starts", "line 5, at most 2 uses", "What it says:"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_file_is_checked_with_line_path_and_cure_of_each_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ships.json");
    std::fs::write(&file, TWO_USES.replace("lteq", "about").replace("\"use\"", "\"use\", \"mood\": 1")).unwrap();
    let file = file.to_str().unwrap();
    let text = said(&["check", file], "", 1);
    for part in [
        "refused, there are 2 problems",
        "line 3, permission[0].mood\n",
        "line 5, permission[0].constraint[0].operator\n",
        "would have passed: ",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let found: Value = serde_json::from_str(&said(&["check", file, "--format", "json"], "", 1)).unwrap();
    assert_eq!(found["enforceable"], false);
    assert_eq!(
        (found["problems"][1]["line"].as_u64(), found["problems"][1]["kind"].as_str()),
        (Some(5), Some("unknown"))
    );
}

#[test]
fn a_policy_is_explained_and_a_request_is_decided_with_the_reasons() {
    assert!(said(&["explain", "-"], TWO_USES, 0).contains("may use the data, on condition of: at most 2 uses."));
    let ask = ["explain", "-", "--assignee", "urn:example:reader", "--at", "2030-01-01T00:00:00Z", "--uses"];
    let yes = said(&[&ask[..], &["2"]].concat(), TWO_USES, 0);
    assert!(yes.contains("may `urn:example:reader` use the data at 2030-01-01T00:00:00Z, as use 2?"), "{yes}");
    assert!(yes.contains("\nYes, ") && yes.contains("up to use 2"), "{yes}");
    let no = said(&[&ask[..], &["3"]].concat(), TWO_USES, 1);
    assert!(no.contains("\nNo, ") && no.contains("this is use 3, and at most 2 uses is asked for"), "{no}");
    // What nobody said is not known, and does not allow.
    let unknown = said(&["explain", "-", "--assignee", "urn:example:reader"], TWO_USES, 1);
    assert!(unknown.contains("the uses were not counted"), "{unknown}");
}

#[test]
fn a_request_is_decided_by_the_facts_that_are_stated() {
    let policy = TWO_USES.replace(
        r#""count", "operator": "lteq", "rightOperand": 2"#,
        r#""spatial", "operator": "eq", "rightOperand": "urn:de""#,
    );
    let ask = ["explain", "-", "--assignee", "urn:example:reader"];
    assert!(said(&ask, &policy, 1).contains("not all of it is known"));
    assert!(said(&[&ask[..], &["--fact", "spatial=urn:de"]].concat(), &policy, 0).contains("with `spatial` urn:de?"));
    assert!(said(&[&ask[..], &["--fact", "spatial=urn:fr"]].concat(), &policy, 1).contains("found `urn:fr`"));
    failed(&[&ask[..], &["--fact", "mood=good"]].concat(), &policy, &["`mood`", "spatial"]);
    let consent = r#"{ "permission": [{ "action": "use", "duty": [{ "action": "obtainConsent" }] }] }"#;
    said(&ask, consent, 1);
    said(&[&ask[..], &["--fact", "consent=yes"]].concat(), consent, 0);
}

#[test]
fn every_template_is_a_policy_that_passes_the_check_where_it_is_said_to_be_enforced() {
    let list: Value = serde_json::from_str(&said(&["templates", "--format", "json"], "", 0)).unwrap();
    let people = said(&["templates"], "", 0);
    let templates = list.as_array().unwrap();
    assert!(!templates.is_empty());
    for template in templates {
        let name = template["name"].as_str().unwrap();
        assert!(people.contains(name), "{people}");
        let policy = said(&["templates", name], "", 0);
        // A class that is refused is there too, and says why.
        let enforced = template["enforced"].as_bool().unwrap();
        said(&["check", "-"], &policy, if enforced { 0 } else { 1 });
        assert_eq!(template["refused"].is_null(), enforced, "{template}");
        for parameter in template["parameters"].as_array().unwrap() {
            let (name, example) = (parameter["name"].as_str().unwrap(), parameter["example"].as_str().unwrap());
            assert!(people.contains(&format!("--set {name}={example}")), "{people}");
        }
    }
}

#[test]
fn parameters_are_set_and_what_is_not_set_is_said() {
    let output = kontor(&["templates", "uses", "--set", "count=7"], "");
    let policy = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(said(&["explain", "-"], &policy, 0).contains("at most 7 uses"), "{policy}");
    let noted = kontor(&["templates", "uses"], "");
    assert!(String::from_utf8_lossy(&noted.stderr).contains("`count` is the example"), "{noted:?}");
}

#[test]
fn what_cannot_be_answered_says_what_would_have_passed() {
    failed(&["check", "/nowhere/policy.json"], "", &["cannot read the policy `/nowhere/policy.json`", "No such file"]);
    failed(&["check", "-"], "{\n  \"permission\" }", &["standard input", "line 2, column 16 is no JSON"]);
    failed(&["explain", "-"], "[1, 2]", &["this is an array", "would have passed"]);
    failed(&["explain", "-"], &TWO_USES.replace("lteq", "about"), &["line 5", "operator", "would have passed"]);
    failed(&["explain", "-", "--uses", "1"], TWO_USES, &["--assignee"]);
    failed(&["explain", "-", "--assignee", "urn:a", "--at", "soon"], TWO_USES, &["--at", "soon"]);
    failed(&["explain", "-", "--assignee", "urn:a", "--uses", "0"], TWO_USES, &["uses", "1 for the first use"]);
    failed(&["templates", "usez"], "", &["there is no template `usez`, did you mean `uses`?"]);
    failed(&["templates", "uses", "--set", "cuont=1"], "", &["did you mean `count`?"]);
    failed(&["templates", "uses", "--set", "count=many"], "", &["`many`", "a whole number", "such as `10`"]);
    failed(&["templates", "uses", "--set", "count=1", "--set", "count=2"], "", &["`count` is set twice"]);
    failed(&["templates", "uses", "--set", "count"], "", &["count=10"]);
    failed(&["templates", "--set", "count=1"], "", &["templates NAME"]);
    failed(&["check", "-"], &" ".repeat(1024 * 1024 + 1), &["more than 1048576 bytes"]);
}
