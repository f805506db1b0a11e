//! IAM decisions: our evaluator on tables of cases, with the crate `iam-rs` as a second opinion, and the roles of the
//! deployed template on what they must and must not be able to do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers beside the tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use local::account::{Account, Principal, PrincipalKind};
use local::clock::Clock;
use local::policy::{Context, Decision, Iam, Policy, Verdict, check_session_policy};
use local::template::{RoleSpec, Template};
use serde_json::{Value, json};

const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/data";

fn policy(statements: Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn context(pairs: &[(&str, &str)]) -> Context {
    pairs.iter().fold(Context::new(), |context, (key, value)| context.with(key, *value))
}

fn allowed(document: &Value, action: &str, resource: &str, pairs: &[(&str, &str)]) -> bool {
    matches!(Policy::identity(document).unwrap().evaluate(action, resource, &context(pairs)), Verdict::Allow(_))
}

/// The crate `iam-rs`; everything but a plain allow counts as a denial.
fn second_opinion(document: &Value, action: &str, resource: &str, pairs: &[(&str, &str)]) -> bool {
    let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, value) in pairs {
        values.entry(key).or_default().push((*value).to_owned());
    }
    let context = values.into_iter().fold(iam_rs::Context::new(), |mut context, (key, values)| {
        let value = match values.as_slice() {
            [one] if key == "kms:EncryptionContextKeys" || key == "aws:TagKeys" => {
                iam_rs::ContextValue::StringList(vec![one.clone()])
            }
            [one] if one == "true" || one == "false" => iam_rs::ContextValue::Boolean(one == "true"),
            [one] if one.parse::<f64>().is_ok() => iam_rs::ContextValue::Number(one.parse().unwrap()),
            [one] => iam_rs::ContextValue::String(one.clone()),
            _ => iam_rs::ContextValue::StringList(values),
        };
        context.insert(key.to_owned(), value);
        context
    });
    let principal = iam_rs::Principal::Aws(iam_rs::PrincipalId::String("arn:aws:iam::111122223333:role/r".to_owned()));
    let Ok(resource) = iam_rs::Arn::parse(resource) else { return false };
    let request = iam_rs::IAMRequest::new_with_context(principal, action, resource, context);
    let policy = iam_rs::IAMPolicy::from_json(&document.to_string()).unwrap();
    matches!(iam_rs::evaluate_policy(&policy, &request), Ok(iam_rs::Decision::Allow))
}

type Pairs = &'static [(&'static str, &'static str)];

/// Each case: name, condition block, what is known, whether the statement allows.
fn condition_cases() -> Vec<(&'static str, Value, Pairs, bool)> {
    vec![
        ("equals", json!({"StringEquals": {"s3:authType": "A"}}), &[("s3:authType", "A")], true),
        ("equals minds case", json!({"StringEquals": {"s3:authType": "A"}}), &[("s3:authType", "a")], false),
        ("equals has no wildcards", json!({"StringEquals": {"s3:authType": "A*"}}), &[("s3:authType", "AB")], false),
        (
            "values are alternatives",
            json!({"StringEquals": {"s3:authType": ["A", "B"]}}),
            &[("s3:authType", "B")],
            true,
        ),
        (
            "keys all count",
            json!({"StringEquals": {"s3:authType": "A", "s3:prefix": "p"}}),
            &[("s3:authType", "A")],
            false,
        ),
        (
            "operators all count",
            json!({"StringEquals": {"s3:authType": "A"}, "Bool": {"aws:SecureTransport": "true"}}),
            &[("s3:authType", "A"), ("aws:SecureTransport", "false")],
            false,
        ),
        ("missing key, equals", json!({"StringEquals": {"s3:authType": "A"}}), &[], false),
        ("missing key, not equals", json!({"StringNotEquals": {"s3:authType": "A"}}), &[], true),
        ("missing key, if exists", json!({"StringEqualsIfExists": {"s3:authType": "A"}}), &[], true),
        (
            "present key, if exists",
            json!({"StringEqualsIfExists": {"s3:authType": "A"}}),
            &[("s3:authType", "B")],
            false,
        ),
        (
            "not equals, one of two",
            json!({"StringNotEquals": {"s3:authType": ["A", "B"]}}),
            &[("s3:authType", "B")],
            false,
        ),
        ("like", json!({"StringLike": {"s3:prefix": "t/*/x?"}}), &[("s3:prefix", "t/acme/x1")], true),
        ("not like", json!({"StringNotLike": {"s3:prefix": "t/*"}}), &[("s3:prefix", "t/acme")], false),
        ("ignore case", json!({"StringEqualsIgnoreCase": {"s3:authType": "abc"}}), &[("s3:authType", "ABC")], true),
        ("null true, absent", json!({"Null": {"s3:authType": "true"}}), &[], true),
        ("null false, absent", json!({"Null": {"s3:authType": "false"}}), &[], false),
        ("null false, present", json!({"Null": {"s3:authType": "false"}}), &[("s3:authType", "A")], true),
        ("bool", json!({"Bool": {"aws:SecureTransport": "true"}}), &[("aws:SecureTransport", "true")], true),
        ("bool, other", json!({"Bool": {"aws:SecureTransport": "true"}}), &[("aws:SecureTransport", "false")], false),
        (
            "numeric at the limit",
            json!({"NumericLessThanEquals": {"s3:signatureAge": 300_000}}),
            &[("s3:signatureAge", "300000")],
            true,
        ),
        (
            "numeric above",
            json!({"NumericLessThanEquals": {"s3:signatureAge": "300000"}}),
            &[("s3:signatureAge", "300001")],
            false,
        ),
        (
            "numeric greater",
            json!({"NumericGreaterThan": {"s3:signatureAge": "5"}}),
            &[("s3:signatureAge", "10")],
            true,
        ),
        (
            "numeric not equals",
            json!({"NumericNotEquals": {"s3:signatureAge": "5"}}),
            &[("s3:signatureAge", "5")],
            false,
        ),
        (
            "all values, subset",
            json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant", "purpose"]}}),
            &[("kms:EncryptionContextKeys", "tenant"), ("kms:EncryptionContextKeys", "purpose")],
            true,
        ),
        (
            "all values, one more",
            json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}}),
            &[("kms:EncryptionContextKeys", "tenant"), ("kms:EncryptionContextKeys", "x")],
            false,
        ),
        (
            "all values minds case",
            json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}}),
            &[("kms:EncryptionContextKeys", "Tenant")],
            false,
        ),
        (
            "all values of nothing",
            json!({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}}),
            &[],
            true,
        ),
        (
            "any value",
            json!({"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}}),
            &[("kms:EncryptionContextKeys", "x"), ("kms:EncryptionContextKeys", "tenant")],
            true,
        ),
        (
            "any value of nothing",
            json!({"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]}}),
            &[],
            false,
        ),
        (
            "encryption context",
            json!({"StringEquals": {"kms:EncryptionContext:purpose": "field"}}),
            &[("kms:EncryptionContext:purpose", "field")],
            true,
        ),
        (
            "encryption context, other value",
            json!({"StringEquals": {"kms:EncryptionContext:purpose": "field"}}),
            &[("kms:EncryptionContext:purpose", "Field")],
            false,
        ),
        (
            "arn like",
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/a*"}}),
            &[("aws:PrincipalArn", "arn:aws:iam::111122223333:role/abc")],
            true,
        ),
        (
            "arn like, other",
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/a*"}}),
            &[("aws:PrincipalArn", "arn:aws:iam::111122223333:role/b")],
            false,
        ),
        (
            "arn not like",
            json!({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/a*"}}),
            &[("aws:PrincipalArn", "arn:aws:iam::111122223333:role/abc")],
            false,
        ),
        (
            "date before",
            json!({"DateLessThan": {"aws:TokenIssueTime": "2026-01-02T00:00:00Z"}}),
            &[("aws:TokenIssueTime", "2026-01-01T23:59:59Z")],
            true,
        ),
        (
            "date not before",
            json!({"DateLessThan": {"aws:TokenIssueTime": "2026-01-02T00:00:00Z"}}),
            &[("aws:TokenIssueTime", "2026-01-02T00:00:00Z")],
            false,
        ),
        ("address inside", json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), &[("aws:SourceIp", "10.1.2.3")], true),
        (
            "address outside",
            json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
            &[("aws:SourceIp", "11.1.2.3")],
            false,
        ),
        (
            "address not in",
            json!({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
            &[("aws:SourceIp", "11.1.2.3")],
            true,
        ),
        (
            "variable",
            json!({"StringEquals": {"kms:EncryptionContext:tenant": "${aws:PrincipalTag/tenant}"}}),
            &[("kms:EncryptionContext:tenant", "acme"), ("aws:PrincipalTag/tenant", "acme")],
            true,
        ),
        (
            "variable, other",
            json!({"StringEquals": {"kms:EncryptionContext:tenant": "${aws:PrincipalTag/tenant}"}}),
            &[("kms:EncryptionContext:tenant", "globex"), ("aws:PrincipalTag/tenant", "acme")],
            false,
        ),
        (
            "variable without value",
            json!({"StringEquals": {"kms:EncryptionContext:tenant": "${aws:PrincipalTag/tenant}"}}),
            &[("kms:EncryptionContext:tenant", "")],
            false,
        ),
    ]
}

#[test]
fn conditions_are_decided_as_iam_documents_them() {
    for (name, condition, pairs, expected) in condition_cases() {
        let document =
            policy(json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": KEY, "Condition": condition}));
        assert_eq!(allowed(&document, "kms:Decrypt", KEY, pairs), expected, "{name}");
    }
}

/// Where the second evaluator differs from AWS's documentation: it replaces variables in resources only.
const OTHERS_MISTAKES: &[&str] = &["variable"];

#[test]
fn a_second_evaluator_agrees_on_conditions() {
    let mut differences = Vec::new();
    for (name, condition, pairs, expected) in condition_cases() {
        let document =
            policy(json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": KEY, "Condition": condition}));
        if second_opinion(&document, "kms:Decrypt", KEY, pairs) != expected {
            differences.push(name);
        }
    }
    assert_eq!(differences, OTHERS_MISTAKES);
}

#[test]
fn actions_and_resources_match_as_iam_documents_them() {
    let object = "arn:aws:s3:::bucket/t/acme/1";
    let cases: [(&str, Value, &str, &str, bool); 12] = [
        (
            "plain",
            json!([{"Effect": "Allow", "Action": "s3:GetObject", "Resource": object}]),
            "s3:GetObject",
            object,
            true,
        ),
        (
            "action ignores case",
            json!([{"Effect": "Allow", "Action": "S3:getobject", "Resource": object}]),
            "s3:GetObject",
            object,
            true,
        ),
        (
            "resource minds case",
            json!([{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::Bucket/*"}]),
            "s3:GetObject",
            object,
            false,
        ),
        (
            "action wildcard",
            json!([{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]),
            "s3:GetObject",
            object,
            true,
        ),
        (
            "other action",
            json!([{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]),
            "s3:PutObject",
            object,
            false,
        ),
        (
            "GetObject is not GetObjectVersion",
            json!([{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]),
            "s3:GetObjectVersion",
            object,
            false,
        ),
        (
            "not action",
            json!([{"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}]),
            "s3:GetObject",
            object,
            true,
        ),
        (
            "not action, excluded",
            json!([{"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}]),
            "s3:GetObject",
            object,
            false,
        ),
        (
            "not resource",
            json!([{"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::bucket/t/globex/*"}]),
            "s3:GetObject",
            object,
            true,
        ),
        (
            "not resource, excluded",
            json!([{"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::bucket/t/acme/*"}]),
            "s3:GetObject",
            object,
            false,
        ),
        (
            "deny wins",
            json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}, {"Effect": "Deny", "Action": "s3:GetObject", "Resource": object}]),
            "s3:GetObject",
            object,
            false,
        ),
        (
            "deny of something else",
            json!([{"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}, {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/t/?cme/*"}]),
            "s3:GetObject",
            object,
            true,
        ),
    ];
    for (name, statements, action, resource, expected) in cases {
        let document = policy(statements);
        assert_eq!(allowed(&document, action, resource, &[]), expected, "{name}");
        assert_eq!(second_opinion(&document, action, resource, &[]), expected, "{name}: second opinion");
    }
}

/// AWS: "KMS: the key name of kms:EncryptionContext is not case-sensitive", while the keys' list is.
#[test]
fn the_key_part_of_an_encryption_context_condition_ignores_case_and_the_key_list_does_not() {
    let by_value = policy(json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": KEY,
        "Condition": {"StringEquals": {"kms:EncryptionContext:tenant": "acme"}}}));
    let by_both = policy(json!({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": KEY, "Condition": {
        "StringEquals": {"kms:EncryptionContext:tenant": "acme"},
        "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["tenant"]},
        "Null": {"kms:EncryptionContextKeys": "false"}}}));
    let misspelt = [("kms:EncryptionContext:Tenant", "acme"), ("kms:EncryptionContextKeys", "Tenant")];
    assert!(allowed(&by_value, "kms:Decrypt", KEY, &misspelt));
    assert!(!allowed(&by_both, "kms:Decrypt", KEY, &misspelt));
    assert!(allowed(
        &by_both,
        "kms:Decrypt",
        KEY,
        &[("kms:EncryptionContext:tenant", "acme"), ("kms:EncryptionContextKeys", "tenant")]
    ));
    assert!(!allowed(&by_both, "kms:Decrypt", KEY, &[]), "ForAllValues alone would let an empty context pass");
}

#[test]
fn a_policy_that_is_not_understood_is_refused_with_every_fault() {
    let statement = |extra: Value| {
        let mut base = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"});
        base.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        policy(json!([base]))
    };
    for (document, fault) in [
        (json!({"Statement": []}), "Version must be"),
        (json!({"Version": "2008-10-17", "Statement": []}), "Version must be"),
        (policy(json!([])), "no Statement"),
        (statement(json!({"Effect": "allow"})), "Effect must be"),
        (statement(json!({"Resources": "*"})), "unknown element `Resources`"),
        (statement(json!({"NotAction": "s3:*"})), "either Action or NotAction"),
        (statement(json!({"Resource": "bucket"})), "`bucket` is no ARN"),
        (statement(json!({"Resource": []})), "Resource must be text"),
        (statement(json!({"Action": "GetObject"})), "`GetObject` is no action"),
        (statement(json!({"Principal": "*"})), "no Principal"),
        (statement(json!({"Sid": "a b"})), "Sid must be"),
        (
            statement(json!({"Condition": {"StringMatches": {"s3:prefix": "a"}}})),
            "unknown condition operator `StringMatches`",
        ),
        (
            statement(json!({"Condition": {"ForSomeValues:StringEquals": {"s3:prefix": "a"}}})),
            "unknown condition operator",
        ),
        (statement(json!({"Condition": {"NullIfExists": {"s3:prefix": "true"}}})), "unknown condition operator"),
        (statement(json!({"Condition": {"stringEquals": {"s3:prefix": "a"}}})), "unknown condition operator"),
        (statement(json!({"Condition": {"StringEquals": {"kms:EncryptionContextKey": "a"}}})), "unknown condition key"),
        (statement(json!({"Condition": {"StringEquals": {"kms:EncryptionContext:": "a"}}})), "unknown condition key"),
        (statement(json!({"Condition": {"StringEquals": {"s3:prefix": []}}})), "has no value"),
        (statement(json!({"Condition": {"StringEquals": {"s3:prefix": {"a": "b"}}}})), "no text, number or boolean"),
        (statement(json!({"Condition": {"Bool": {"aws:SecureTransport": "yes"}}})), "does not suit"),
        (statement(json!({"Condition": {"NumericEquals": {"s3:signatureAge": "soon"}}})), "does not suit"),
        (statement(json!({"Condition": {"DateLessThan": {"aws:CurrentTime": "tomorrow"}}})), "does not suit"),
        (statement(json!({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}})), "does not suit"),
        (statement(json!({"Condition": {"ArnLike": {"aws:SourceArn": "role/x"}}})), "does not suit"),
        (statement(json!({"Condition": {"StringLike": {"s3:prefix": "${aws:Nobody}"}}})), "unknown variable"),
        (statement(json!({"Condition": []})), "not an object"),
    ] {
        let faults = Policy::identity(&document).expect_err(fault);
        assert!(faults.iter().any(|found| found.contains(fault)), "wanted `{fault}`, got {faults:?}");
        assert_eq!(check_session_policy(&document), Err(faults));
    }
}

// ---- the account -------------------------------------------------------------------------------------------------

fn role(name: &str, policies: &[Value], trusted: Value) -> RoleSpec {
    RoleSpec {
        boundary: None,
        name: name.to_owned(),
        arn: format!("arn:aws:iam::111122223333:role/{name}"),
        policies: policies.to_vec(),
        trust: policy(json!({"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"})),
    }
}

fn account(roles: &[RoleSpec]) -> Account {
    Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), roles).unwrap())
}

fn narrowed(account: &Account, role: &str, session_policy: Value) -> Principal {
    let mut principal = account.session(role, "s", None);
    if let PrincipalKind::Role { session_policy: slot, .. } = &mut principal.kind {
        *slot = Some(session_policy);
    }
    principal
}

#[test]
fn a_session_policy_only_narrows() {
    let may =
        policy(json!({"Sid": "Get", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/t/*"}));
    let account = account(&[role("r", &[may], json!({"Service": "lambda.amazonaws.com"}))]);
    let tenant = policy(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/t/acme/*"}));
    let decide = |principal: &Principal, action: &str, resource: &str| {
        account.iam.authorize(principal, action, resource, &Context::new()).allowed()
    };
    let (plain, acme) = (account.session("r", "s", None), narrowed(&account, "r", tenant));
    assert!(decide(&plain, "s3:GetObject", "arn:aws:s3:::b/t/globex/1"));
    assert!(decide(&acme, "s3:GetObject", "arn:aws:s3:::b/t/acme/1"));
    assert!(!decide(&acme, "s3:GetObject", "arn:aws:s3:::b/t/globex/1"), "outside the session policy");
    assert!(!decide(&acme, "s3:PutObject", "arn:aws:s3:::b/t/acme/1"), "outside the role's policy");
    assert!(!decide(&narrowed(&account, "r", json!({})), "s3:GetObject", "arn:aws:s3:::b/t/acme/1"), "unreadable");
    assert!(!decide(&account.session("nobody", "s", None), "s3:GetObject", "arn:aws:s3:::b/t/acme/1"));
    assert!(decide(&account.operator(), "kms:ScheduleKeyDeletion", KEY));
}

#[test]
fn what_a_boundary_does_not_allow_no_policy_allows_and_the_trail_says_so() {
    let all = policy(json!({"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}));
    let boundary = policy(json!([
        {"Sid": "Reads", "Effect": "Allow", "Action": ["s3:GetObject", "kms:Encrypt", "sts:AssumeRole"], "Resource": "*"},
        {"Sid": "NotThese", "Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/secret/*"},
    ]));
    let root = json!({"AWS": "arn:aws:iam::111122223333:root"});
    let bound = RoleSpec { boundary: Some(boundary), ..role("bound", &[all], root.clone()) };
    let empty = RoleSpec { policies: Vec::new(), ..bound.clone() };
    let empty = RoleSpec { name: "empty".to_owned(), arn: "arn:aws:iam::111122223333:role/empty".to_owned(), ..empty };
    let account = account(&[bound, empty]);
    let session = account.session("bound", "s", None);
    let decide = |action: &str, resource: &str| account.iam.authorize(&session, action, resource, &Context::new());
    let because = |reason: &str| Decision::Deny { reason: reason.to_owned() };
    let last = || account.iam.trail().pop().unwrap();
    assert_eq!(decide("s3:GetObject", "arn:aws:s3:::b/k"), Decision::Allow);
    assert_eq!(
        (last().statement.as_deref(), last().within.as_deref()),
        (Some("bound/0/All"), Some("bound/boundary/Reads"))
    );
    let outside = "because no permissions boundary allows the s3:PutObject action";
    assert_eq!(decide("s3:PutObject", "arn:aws:s3:::b/k"), because(outside));
    assert_eq!((last().statement, last().within, last().reason.as_str()), (None, None, outside));
    let denied = "with an explicit deny in a permissions boundary";
    assert_eq!(decide("s3:GetObject", "arn:aws:s3:::b/secret/k"), because(denied));
    assert_eq!(last().statement.as_deref(), Some("bound/boundary/NotThese"));
    // It gives nothing by itself.
    let nothing = account.session("empty", "s", None);
    let none = account.iam.authorize(&nothing, "s3:GetObject", "arn:aws:s3:::b/k", &Context::new());
    assert_eq!(none, because("because no identity-based policy allows the s3:GetObject action"));
    assert_eq!(last().within.as_deref(), Some("empty/boundary/Reads"));
    // A session's own policy narrows what is left.
    let get_b = policy(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/t/*"}));
    let narrow = narrowed(&account, "bound", get_b);
    let decide_narrow = |action: &str, key: &str| {
        account.iam.authorize(&narrow, action, &format!("arn:aws:s3:::b/{key}"), &Context::new()).allowed()
    };
    assert!(decide_narrow("s3:GetObject", "t/1"));
    assert!(!decide_narrow("s3:GetObject", "u/1") && !decide_narrow("s3:PutObject", "t/1"));
}

#[test]
fn beyond_a_boundary_reaches_only_a_policy_that_names_the_session_itself_and_not_beyond_its_denials() {
    let boundary = policy(json!([
        {"Sid": "Reads", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
        {"Sid": "Never", "Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
    ]));
    let bound =
        RoleSpec { boundary: Some(boundary), ..role("bound", &[], json!({"AWS": "arn:aws:iam::111122223333:root"})) };
    let target = role("target", &[], json!({"AWS": "arn:aws:iam::111122223333:role/bound"}));
    let account = account(&[bound, target]);
    let session = account.session("bound", "s", None);
    let held = |principal: Value| {
        let statement = json!({"Sid": "Bucket", "Effect": "Allow", "Principal": principal, "Resource": "arn:aws:s3:::b/*",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]});
        account.iam.set_resource_policy("arn:aws:s3:::b", &policy(statement)).unwrap();
        ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
            .map(|action| account.iam.authorize(&session, action, "arn:aws:s3:::b/k", &Context::new()).allowed())
    };
    assert_eq!(held(json!({"AWS": "arn:aws:iam::111122223333:role/bound"})), [true, false, false], "the role");
    assert_eq!(held(json!("*")), [true, false, false], "anybody");
    assert_eq!(
        held(json!({"AWS": "arn:aws:sts::111122223333:assumed-role/bound/s"})),
        [true, true, false],
        "the session"
    );
    assert_eq!(held(json!({"AWS": "arn:aws:sts::111122223333:assumed-role/bound/t"})), [false; 3], "another session");
    // Nor does a trust policy that names the role.
    let assumed = account.iam.assume(&session, "arn:aws:iam::111122223333:role/target", &Context::new());
    assert!(!assumed.allowed(), "{assumed:?}");
}

#[test]
fn a_boundary_that_is_not_understood_is_an_error_at_the_start() {
    let boundary = policy(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*",
        "Condition": {"StringEquals": {"s3:moonPhase": "full"}}}));
    let bound = RoleSpec { boundary: Some(boundary), ..role("r", &[], json!({"Service": "lambda.amazonaws.com"})) };
    let faults = Iam::new("111122223333", "us-east-1", Clock::system(), &[bound]).unwrap_err();
    assert_eq!(faults, ["r permissions boundary: statement 0: unknown condition key `s3:moonPhase`"]);
}

#[test]
fn every_deployed_role_stands_under_the_deployments_boundary_and_a_key_of_no_name_is_outside_it() {
    let template = template();
    for role in &template.deployment().roles {
        assert!(role.boundary.is_some(), "{}", role.name);
    }
    let account = deployed();
    let session = account.session("portcullis-test-data-key-decrypt", "s", None);
    let decide = |context: &Context| account.iam.authorize(&session, "kms:Decrypt", KEY, context);
    assert_eq!(decide(&known(KEY, FIELD)), Decision::Allow);
    for foreign in [context(FIELD), context(FIELD).with("kms:ResourceAliases", "alias/portcullis-prod-data")] {
        let refused = decide(&foreign);
        assert!(
            matches!(&refused, Decision::Deny { reason } if reason.contains("permissions boundary")),
            "{refused:?}"
        );
    }
}

#[test]
fn a_denial_says_why_as_aws_does_and_every_decision_is_on_the_trail() {
    let statements = json!([
        {"Sid": "Get", "Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Sid": "NoPut", "Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"},
        {"Sid": "Spare", "Effect": "Allow", "Action": "kms:Sign", "Resource": "*"}
    ]);
    let account = account(&[role("r", &[policy(statements)], json!({"Service": "lambda.amazonaws.com"}))]);
    let session = account.session("r", "s", None);
    let decide = |action: &str| account.iam.authorize(&session, action, "arn:aws:s3:::b/k", &Context::new());
    assert_eq!(decide("s3:GetObject"), Decision::Allow);
    let because = |reason: &str| Decision::Deny { reason: reason.to_owned() };
    assert_eq!(decide("s3:PutObject"), because("with an explicit deny in an identity-based policy"));
    assert_eq!(decide("sqs:Send"), because("because no identity-based policy allows the sqs:Send action"));
    let trail: Vec<_> =
        account.iam.trail().into_iter().map(|entry| (entry.service, entry.allowed, entry.statement)).collect();
    assert_eq!(
        trail,
        [
            ("s3".to_owned(), true, Some("r/0/Get".to_owned())),
            ("s3".to_owned(), false, Some("r/0/NoPut".to_owned())),
            ("sqs".to_owned(), false, None),
        ]
    );
    assert_eq!(account.iam.unused(), ["r/0/Spare"]);
}

#[test]
fn a_key_is_opened_by_its_own_policy_and_by_identity_policies_only_where_that_leaves_it_to_them() {
    let root = "arn:aws:iam::111122223333:root";
    let all = policy(json!({"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}));
    let trust = json!({"AWS": root});
    let account = account(&[role("admin", &[all], trust.clone()), role("plain", &[], trust)]);
    let held = |statements: Value| account.iam.set_resource_policy(KEY, &policy(statements)).unwrap();
    let asked = |name: &str, pairs: &[(&str, &str)]| {
        account.iam.authorize(&account.session(name, "s", None), "kms:Encrypt", KEY, &context(pairs)).allowed()
    };
    assert!(asked("admin", &[]) && !asked("plain", &[]), "without a policy of its own it is left to identity policies");
    let account_alone =
        json!({"Sid": "Account", "Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"});
    held(account_alone.clone());
    assert!(asked("admin", &[]) && !asked("plain", &[]));
    let plain = "arn:aws:iam::111122223333:role/plain";
    held(
        json!({"Sid": "One", "Effect": "Allow", "Principal": {"AWS": plain}, "Action": "kms:Encrypt", "Resource": "*"}),
    );
    assert!(asked("plain", &[]), "named, it needs nothing else");
    assert!(!asked("admin", &[]), "an identity policy is worth nothing where the key's does not leave it to them");
    held(json!([account_alone, {"Sid": "NotThis", "Effect": "Deny", "Principal": "*", "Action": "kms:Encrypt",
        "Resource": "*", "Condition": {"Null": {"kms:EncryptionContext:tenant": "true"}}}]));
    assert!(!asked("admin", &[]), "a denial wins");
    assert!(asked("admin", &[("kms:EncryptionContext:tenant", "acme")]));
    let operator = account.iam.authorize(&account.operator(), "kms:Encrypt", KEY, &Context::new());
    assert!(operator.allowed(), "the operator of the stack stands above policies");
}

#[test]
fn a_bucket_is_left_to_identity_policies_but_for_what_its_own_policy_says() {
    let own = policy(json!({"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/own/*"}));
    let trust = json!({"Service": "lambda.amazonaws.com"});
    let account = account(&[role("own", &[own], trust.clone()), role("plain", &[], trust)]);
    let shared = json!([
        {"Sid": "Shared", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:role/plain"},
            "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/shared/*"},
        {"Sid": "Sealed", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::b/*",
            "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}},
    ]);
    account.iam.set_resource_policy("arn:aws:s3:::b", &policy(shared)).unwrap();
    let asked = |name: &str, action: &str, key: &str, pairs: &[(&str, &str)]| {
        let session = account.session(name, "s", None);
        account.iam.authorize(&session, action, &format!("arn:aws:s3:::{key}"), &context(pairs)).allowed()
    };
    assert!(asked("own", "s3:GetObject", "b/own/1", &[]));
    assert!(asked("plain", "s3:GetObject", "b/shared/1", &[]));
    assert!(!asked("plain", "s3:GetObject", "b/own/1", &[]));
    assert!(!asked("plain", "s3:GetObject", "bb/shared/1", &[]), "another bucket whose name begins like this one's");
    assert!(!asked("own", "s3:PutObject", "b/own/1", &[]));
    assert!(asked("own", "s3:PutObject", "b/own/1", &[("s3:x-amz-server-side-encryption", "aws:kms")]));
}

#[test]
fn an_endpoint_lets_through_what_its_policy_allows_and_is_asked_about_nothing_that_comes_another_way() {
    let all = policy(json!({"Effect": "Allow", "Action": "*", "Resource": "*"}));
    let account = account(&[role("r", &[all], json!({"Service": "lambda.amazonaws.com"}))]);
    let through = policy(json!({"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}));
    account.iam.set_endpoint_policy("kms", &through).unwrap();
    let session = account.session("r", "s", None);
    let asked = |action: &str, pairs: &[(&str, &str)]| account.iam.authorize(&session, action, KEY, &context(pairs));
    let inside = [("aws:SourceVpce", "vpce-1")];
    assert!(asked("kms:Decrypt", &inside).allowed() && asked("kms:Encrypt", &[]).allowed());
    let reason = "because no VPC endpoint policy allows the kms:Encrypt action".to_owned();
    assert_eq!(asked("kms:Encrypt", &inside), Decision::Deny { reason });
    assert!(asked("s3:GetObject", &inside).allowed(), "another service's endpoint");
}

#[test]
fn the_operator_too_takes_on_only_a_role_that_trusts_the_account_and_a_role_named_itself_needs_nothing_more() {
    let direct = json!({"AWS": "arn:aws:iam::111122223333:role/plain"});
    let account = account(&[
        role("open", &[], json!({"AWS": "arn:aws:iam::111122223333:root"})),
        role("stranger", &[], json!({"AWS": "arn:aws:iam::999988887777:root"})),
        role("direct", &[], direct),
        role("plain", &[], json!({"Service": "lambda.amazonaws.com"})),
    ]);
    let arn = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
    let by = |caller: &Principal, name: &str| account.iam.assume(caller, &arn(name), &Context::new()).allowed();
    let (operator, plain) = (account.operator(), account.session("plain", "s", None));
    assert!(by(&operator, "open"));
    for closed in ["stranger", "direct", "plain", "none"] {
        assert!(!by(&operator, closed), "{closed}");
    }
    assert!(by(&plain, "direct"));
    assert!(!by(&plain, "open"), "named by its account alone, it needs a policy of its own");
}

#[test]
fn a_role_is_taken_on_only_by_whom_it_trusts_and_who_may_try() {
    const SIGNER: &str = "arn:aws:iam::111122223333:role/signer";
    let may = policy(json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": SIGNER}));
    let upload = "arn:aws:iam::111122223333:role/upload";
    let nobody = json!({"Service": "lambda.amazonaws.com"});
    let account = account(&[
        role("signer", &[], json!({"AWS": upload})),
        role("upload", std::slice::from_ref(&may), nobody.clone()),
        role("download", &[may], nobody.clone()),
        role("mute", &[], nobody),
    ]);
    let iam = &account.iam;
    let assume = |name: &str| iam.assume(&account.session(name, "s", None), SIGNER, &Context::new()).allowed();
    assert!(assume("upload"));
    assert!(!assume("download"), "not trusted");
    assert!(!assume("mute"));
    assert!(
        !iam.assume(&account.session("upload", "s", None), "arn:aws:iam::111122223333:role/none", &Context::new())
            .allowed()
    );
    assert!(iam.trusts(SIGNER, upload));
    assert!(iam.trusts(SIGNER, "arn:aws:sts::111122223333:assumed-role/upload/any"));
    assert!(!iam.trusts(SIGNER, "arn:aws:sts::999999999999:assumed-role/upload/any"), "another account");
    assert!(!iam.trusts(SIGNER, "arn:aws:iam::111122223333:role/upload2"));
    assert!(iam.trusts_service(upload, "lambda.amazonaws.com"));
    assert!(!iam.trusts_service(SIGNER, "lambda.amazonaws.com"));
}

#[test]
fn a_trust_policy_is_read_strictly() {
    let trust =
        |principal: Value| policy(json!({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}));
    for (document, fault) in [
        (policy(json!({"Effect": "Allow", "Action": "sts:AssumeRole"})), "needs a Principal"),
        (trust(json!({"Federated": "x"})), "unknown principal type"),
        (trust(json!({"AWS": "arn:aws:iam::1:role/*"})), "no wildcard inside a principal"),
        (trust(json!({"AWS": []})), "names nobody"),
        (trust(json!("everyone")), "neither"),
    ] {
        let faults = Policy::trust(&document).expect_err(fault);
        assert!(faults.iter().any(|found| found.contains(fault)), "{faults:?}");
    }
}

#[test]
fn sessions_older_than_a_moment_can_be_cut_off_by_their_issue_time() {
    let clock = Clock::system();
    let cut = time::OffsetDateTime::from(clock.now() + Duration::from_secs(60));
    let cut = cut.format(&time::format_description::well_known::Rfc3339).unwrap();
    let statements = json!([
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"aws:TokenIssueTime": cut}}}
    ]);
    let roles = [role("r", &[policy(statements)], json!({"Service": "lambda.amazonaws.com"}))];
    let account = Account::new(Iam::new("111122223333", "us-east-1", clock.clone(), &roles).unwrap());
    let keys = account.credentials.issue(account.session("r", "s", None), None);
    let authenticated = |issued_at| local::sigv4::Authenticated {
        principal: account.session("r", "s", None),
        access_key_id: keys.access_key_id.clone(),
        issued_at,
        signed_headers: vec![],
        auth_type: local::sigv4::AuthType::Header,
        date: issued_at,
        expires: None,
    };
    let decide = |issued_at| {
        account.iam.authorize(&authenticated(issued_at), "s3:GetObject", "arn:aws:s3:::b/k", &Context::new()).allowed()
    };
    assert!(!decide(clock.now()));
    assert!(decide(clock.now() + Duration::from_secs(120)));
}

// ---- the deployed roles ------------------------------------------------------------------------------------------

fn template() -> Template {
    let parameters = [
        ("Env", "test"),
        ("Issuer", "https://localhost:1"),
        ("Audience", "https://api.example"),
        ("TrustBucket", "trust"),
        ("ObjectBucket", "objects"),
        ("DataKeyArn", KEY),
        ("BucketKeyArn", "arn:aws:kms:us-east-1:111122223333:key/bucket"),
        ("ReceiptKeyArn", "arn:aws:kms:us-east-1:111122223333:key/receipts"),
        ("SigningHost", "http://127.0.0.1:2"),
        ("DbHost", "localhost"),
        ("DbProxyResourceId", "prx-1"),
        ("DbResourceId", "db-1"),
        ("DbDirectHost", "127.0.0.1"),
        ("Scan", "off"),
        ("CodeBucket", "code"),
        ("SigningKeyArn", "arn:aws:kms:us-east-1:111122223333:key/signing"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    Template::deployed(&parameters, "111122223333", "us-east-1", "api123").unwrap()
}

/// What is known of a call, and of the key that it is about: data.yaml gives each but the signing keys an alias of the deployment.
fn known(resource: &str, pairs: &[(&str, &str)]) -> Context {
    let aliased = [KEY, BUCKET_KEY, RECEIPT_KEY].contains(&resource);
    let known = context(pairs);
    if aliased { known.with("kms:ResourceAliases", "alias/portcullis-test-x") } else { known }
}

fn deployed() -> Account {
    account(&template().deployment().roles)
}

const BUCKET_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/bucket";
const SIGNING_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/sign";
const RECEIPT_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/receipts";
const RECEIPT: Pairs = &[("kms:SigningAlgorithm", "ECDSA_SHA_256"), ("kms:MessageType", "DIGEST")];
const OBJECT: &str = "arn:aws:s3:::objects/t/acme/1";
const FIELD: Pairs = &[
    ("kms:EncryptionContext:tenant", "acme"),
    ("kms:EncryptionContext:purpose", "field"),
    ("kms:EncryptionContext:data_key_id", "1"),
    ("kms:EncryptionContextKeys", "tenant"),
    ("kms:EncryptionContextKeys", "purpose"),
    ("kms:EncryptionContextKeys", "data_key_id"),
];
const FIELD_ON_SAME_KEY: Pairs = &[
    ("kms:EncryptionContext:tenant", "acme"),
    ("kms:EncryptionContext:purpose", "field"),
    ("kms:EncryptionContext:data_key_id", "1"),
    ("kms:EncryptionContextKeys", "tenant"),
    ("kms:EncryptionContextKeys", "purpose"),
    ("kms:EncryptionContextKeys", "data_key_id"),
    ("kms:ReEncryptOnSameKey", "true"),
];
const WRITER: Pairs = &[
    ("kms:EncryptionContext:tenant", "acme"),
    ("kms:EncryptionContext:purpose", "writer"),
    ("kms:EncryptionContext:data_key_id", "1"),
    ("kms:EncryptionContextKeys", "tenant"),
    ("kms:EncryptionContextKeys", "purpose"),
    ("kms:EncryptionContextKeys", "data_key_id"),
];
const INDEX: Pairs = &[
    ("kms:EncryptionContext:tenant", "acme"),
    ("kms:EncryptionContext:purpose", "index"),
    ("kms:EncryptionContext:data_key_id", "1"),
    ("kms:EncryptionContextKeys", "tenant"),
    ("kms:EncryptionContextKeys", "purpose"),
    ("kms:EncryptionContextKeys", "data_key_id"),
];
const WITH_MORE: Pairs = &[
    ("kms:EncryptionContext:purpose", "field"),
    ("kms:EncryptionContextKeys", "purpose"),
    ("kms:EncryptionContextKeys", "more"),
];
const SIGN: Pairs = &[
    ("aws:ResourceTag/portcullis:signing", "test"),
    ("kms:SigningAlgorithm", "RSASSA_PKCS1_V1_5_SHA_256"),
    ("kms:MessageType", "DIGEST"),
];
const SIGN_OTHER_ENV: Pairs = &[
    ("aws:ResourceTag/portcullis:signing", "prod"),
    ("kms:SigningAlgorithm", "RSASSA_PKCS1_V1_5_SHA_256"),
    ("kms:MessageType", "DIGEST"),
];
const SIGN_PSS: Pairs = &[
    ("aws:ResourceTag/portcullis:signing", "test"),
    ("kms:SigningAlgorithm", "RSASSA_PSS_SHA_256"),
    ("kms:MessageType", "DIGEST"),
];
const NEW_KEY: Pairs = &[
    ("kms:KeyUsage", "SIGN_VERIFY"),
    ("kms:KeySpec", "RSA_2048"),
    ("aws:RequestTag/portcullis:signing", "test"),
    ("aws:TagKeys", "portcullis:signing"),
];
const NEW_DATA_KEY: Pairs = &[
    ("kms:KeyUsage", "ENCRYPT_DECRYPT"),
    ("kms:KeySpec", "SYMMETRIC_DEFAULT"),
    ("aws:RequestTag/portcullis:signing", "test"),
    ("aws:TagKeys", "portcullis:signing"),
];
const NEW_KEY_MORE_TAGS: Pairs = &[
    ("kms:KeyUsage", "SIGN_VERIFY"),
    ("kms:KeySpec", "RSA_2048"),
    ("aws:RequestTag/portcullis:signing", "test"),
    ("aws:TagKeys", "portcullis:signing"),
    ("aws:TagKeys", "more"),
];
const VIA_S3: Pairs = &[
    ("kms:ViaService", "s3.us-east-1.amazonaws.com"),
    ("kms:EncryptionContext:aws:s3:arn", "arn:aws:s3:::objects/t/acme/1"),
    ("kms:EncryptionContextKeys", "aws:s3:arn"),
];
const VIA_S3_WITH_BUCKET_KEY: Pairs = &[
    ("kms:ViaService", "s3.us-east-1.amazonaws.com"),
    ("kms:EncryptionContext:aws:s3:arn", "arn:aws:s3:::objects"),
    ("kms:EncryptionContextKeys", "aws:s3:arn"),
];
const VIA_S3_OF_ANOTHER_BUCKET: Pairs = &[
    ("kms:ViaService", "s3.us-east-1.amazonaws.com"),
    ("kms:EncryptionContext:aws:s3:arn", "arn:aws:s3:::elsewhere/t/acme/1"),
    ("kms:EncryptionContextKeys", "aws:s3:arn"),
];
const SIGNED_PUT: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "299999"),
    ("aws:SecureTransport", "true"),
    ("s3:x-amz-server-side-encryption", "aws:kms"),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", BUCKET_KEY),
    ("s3:if-none-match", "*"),
];
const SIGNED_PUT_OVERWRITING: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:x-amz-server-side-encryption", "aws:kms"),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", BUCKET_KEY),
];
const SIGNED_PUT_OTHER_KEY: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:x-amz-server-side-encryption", "aws:kms"),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", KEY),
    ("s3:if-none-match", "*"),
];
const SIGNED_FORM: Pairs = &[
    ("s3:authType", "POST"),
    ("s3:signatureAge", "299999"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "true"),
    ("s3:x-amz-server-side-encryption", "aws:kms"),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", BUCKET_KEY),
];
const SIGNED_PART: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "false"),
];
const SIGNED_PART_BY_HEADER: Pairs = &[
    ("s3:authType", "REST-HEADER"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "false"),
];
const SIGNED_BEGINNING_OTHER_KEY: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "false"),
    ("s3:x-amz-server-side-encryption", "aws:kms"),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", KEY),
];
const SIGNED_COMPLETION: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "true"),
    ("s3:if-none-match", "*"),
];
const SIGNED_COMPLETION_OVERWRITING: Pairs = &[
    ("s3:authType", "REST-QUERY-STRING"),
    ("s3:signatureAge", "1"),
    ("aws:SecureTransport", "true"),
    ("s3:ObjectCreationOperation", "true"),
];
const SIGNED_GET: Pairs =
    &[("s3:authType", "REST-QUERY-STRING"), ("s3:signatureAge", "300000"), ("aws:SecureTransport", "true")];
const SIGNED_GET_OLD: Pairs =
    &[("s3:authType", "REST-QUERY-STRING"), ("s3:signatureAge", "300001"), ("aws:SecureTransport", "true")];
const SIGNED_GET_PLAIN: Pairs =
    &[("s3:authType", "REST-QUERY-STRING"), ("s3:signatureAge", "1"), ("aws:SecureTransport", "false")];
const HEADER_GET: Pairs = &[("s3:authType", "REST-HEADER"), ("aws:SecureTransport", "true")];

/// Role, action, resource, what is known, may it.
const MATRIX: &[(&str, &str, &str, Pairs, bool)] = &[
    ("token", "kms:Sign", SIGNING_KEY, SIGN, true),
    ("token", "kms:Sign", SIGNING_KEY, SIGN_OTHER_ENV, false),
    ("token", "kms:Sign", SIGNING_KEY, SIGN_PSS, false),
    ("token", "kms:Sign", SIGNING_KEY, &[], false),
    ("token", "kms:CreateKey", "*", NEW_KEY, false),
    ("token", "kms:Decrypt", KEY, FIELD, false),
    ("token", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[], true),
    ("token", "s3:PutObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("token", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/token/1", &[], true),
    ("token", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/admin/1", &[], false),
    ("token", "s3:PutObject", "arn:aws:s3:::trust/trust/revocations.json", &[], false),
    ("token", "s3:GetObject", OBJECT, &[], false),
    ("token", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/token", &[], true),
    ("token", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/trust", &[], false),
    ("token", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/portcullis_owner", &[], false),
    ("token", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:db-1/token", &[], false),
    ("authorizer", "s3:GetObject", "arn:aws:s3:::trust/trust/revocations.json", &[], true),
    ("authorizer", "s3:GetObject", "arn:aws:s3:::trust/trust-inbox/admin/1", &[], false),
    ("authorizer", "s3:ListBucket", "arn:aws:s3:::trust", &[], false),
    ("authorizer", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/authorizer", &[], false),
    ("authorizer", "kms:Sign", SIGNING_KEY, SIGN, false),
    ("upload", "s3:PutObject", OBJECT, SIGNED_PUT, false),
    ("upload", "sts:AssumeRole", "arn:aws:iam::111122223333:role/portcullis-test-upload-signer", &[], true),
    ("upload", "sts:AssumeRole", "arn:aws:iam::111122223333:role/portcullis-test-download-signer", &[], false),
    ("download", "sts:AssumeRole", "arn:aws:iam::111122223333:role/portcullis-test-download-signer", &[], true),
    ("download", "sts:AssumeRole", "arn:aws:iam::111122223333:role/portcullis-test-upload-signer", &[], false),
    ("download", "s3:GetObjectVersion", OBJECT, SIGNED_GET, false),
    ("download", "kms:Sign", RECEIPT_KEY, RECEIPT, true),
    ("download", "kms:Sign", RECEIPT_KEY, &[], false),
    ("download", "kms:Sign", SIGNING_KEY, RECEIPT, false),
    ("download", "kms:GetPublicKey", RECEIPT_KEY, &[], true),
    ("download", "kms:GetPublicKey", SIGNING_KEY, &[], false),
    ("token", "kms:Sign", RECEIPT_KEY, RECEIPT, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_PUT, true),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_PUT_OVERWRITING, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_PUT_OTHER_KEY, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_GET, false),
    ("upload-signer", "s3:PutObject", "arn:aws:s3:::objects/other/1", SIGNED_PUT, false),
    ("upload-signer", "s3:PutObject", "arn:aws:s3:::trust/trust/keys.json", SIGNED_PUT, false),
    ("upload-signer", "s3:GetObjectVersion", OBJECT, SIGNED_GET, false),
    ("upload-signer", "s3:PutObjectTagging", OBJECT, SIGNED_PUT, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_FORM, true),
    ("upload-signer", "s3:PutObject", "arn:aws:s3:::objects/other/1", SIGNED_FORM, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_PART, true),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_PART_BY_HEADER, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_BEGINNING_OTHER_KEY, false),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_COMPLETION, true),
    ("upload-signer", "s3:PutObject", OBJECT, SIGNED_COMPLETION_OVERWRITING, false),
    ("upload-signer", "s3:ListMultipartUploadParts", OBJECT, SIGNED_PART, true),
    ("upload-signer", "s3:ListMultipartUploadParts", OBJECT, SIGNED_PART_BY_HEADER, false),
    ("upload-signer", "s3:AbortMultipartUpload", OBJECT, SIGNED_PART, true),
    ("upload-signer", "s3:AbortMultipartUpload", "arn:aws:s3:::objects/other/1", SIGNED_PART, false),
    ("upload-signer", "kms:Decrypt", BUCKET_KEY, VIA_S3, true),
    ("upload-signer", "kms:Decrypt", BUCKET_KEY, &[], false),
    ("upload-signer", "kms:GenerateDataKey", BUCKET_KEY, VIA_S3, true),
    ("upload-signer", "kms:GenerateDataKey", BUCKET_KEY, VIA_S3_WITH_BUCKET_KEY, true),
    ("upload-signer", "kms:GenerateDataKey", BUCKET_KEY, VIA_S3_OF_ANOTHER_BUCKET, false),
    ("upload-signer", "kms:GenerateDataKey", BUCKET_KEY, &[], false),
    ("upload-signer", "kms:GenerateDataKey", KEY, VIA_S3, false),
    ("download-signer", "s3:GetObjectVersion", OBJECT, SIGNED_GET, true),
    ("download-signer", "s3:GetObjectVersion", OBJECT, SIGNED_GET_OLD, false),
    ("download-signer", "s3:GetObjectVersion", OBJECT, SIGNED_GET_PLAIN, false),
    ("download-signer", "s3:GetObjectVersion", OBJECT, HEADER_GET, false),
    ("download-signer", "s3:GetObject", OBJECT, SIGNED_GET, false),
    ("download-signer", "s3:PutObject", OBJECT, SIGNED_PUT, false),
    ("download-signer", "s3:DeleteObject", OBJECT, SIGNED_GET, false),
    ("download-signer", "kms:Decrypt", BUCKET_KEY, VIA_S3, true),
    ("download-signer", "kms:Decrypt", BUCKET_KEY, VIA_S3_WITH_BUCKET_KEY, true),
    ("download-signer", "kms:Decrypt", BUCKET_KEY, VIA_S3_OF_ANOTHER_BUCKET, false),
    ("download-signer", "kms:Decrypt", BUCKET_KEY, &[], false),
    ("data-key-encrypt", "kms:GenerateDataKey", KEY, FIELD, true),
    ("data-key-encrypt", "kms:GenerateDataKey", KEY, WRITER, false),
    ("data-key-encrypt", "kms:GenerateDataKey", KEY, WITH_MORE, false),
    ("data-key-encrypt", "kms:GenerateDataKey", KEY, &[], false),
    ("data-key-encrypt", "kms:GenerateDataKey", BUCKET_KEY, FIELD, false),
    ("data-key-encrypt", "kms:Encrypt", KEY, WRITER, true),
    ("data-key-encrypt", "kms:Encrypt", KEY, FIELD, false),
    ("data-key-encrypt", "kms:Decrypt", KEY, WRITER, true),
    ("data-key-encrypt", "kms:Decrypt", KEY, FIELD, false),
    ("data-key-encrypt", "kms:GenerateDataKey", KEY, INDEX, true),
    ("data-key-encrypt", "kms:Decrypt", KEY, INDEX, true),
    ("data-key-encrypt", "kms:Encrypt", KEY, INDEX, false),
    ("data-key-encrypt", "kms:GenerateDataKey", BUCKET_KEY, INDEX, false),
    ("data-key-encrypt", "kms:ReEncryptFrom", KEY, FIELD, false),
    ("data-key-decrypt", "kms:Decrypt", KEY, FIELD, true),
    ("data-key-decrypt", "kms:Decrypt", KEY, WRITER, false),
    ("data-key-decrypt", "kms:Decrypt", KEY, INDEX, false),
    ("data-key-decrypt", "kms:Decrypt", KEY, WITH_MORE, false),
    ("data-key-decrypt", "kms:GenerateDataKey", KEY, FIELD, false),
    ("data-key-decrypt", "kms:Encrypt", KEY, WRITER, false),
    ("data-key-maintain", "kms:GenerateDataKey", KEY, FIELD, true),
    ("data-key-maintain", "kms:GenerateDataKey", KEY, INDEX, false),
    ("data-key-maintain", "kms:Decrypt", KEY, FIELD, true),
    ("data-key-maintain", "kms:Decrypt", KEY, WRITER, false),
    ("data-key-maintain", "kms:Decrypt", KEY, WITH_MORE, false),
    ("data-key-maintain", "kms:Decrypt", BUCKET_KEY, FIELD, false),
    ("data-key-maintain", "kms:Encrypt", KEY, WRITER, true),
    ("data-key-maintain", "kms:Encrypt", KEY, FIELD, false),
    ("data-key-maintain", "kms:ListKeyRotations", KEY, &[], true),
    ("data-key-maintain", "kms:ListKeyRotations", BUCKET_KEY, &[], false),
    ("data-key-maintain", "kms:ReEncryptFrom", KEY, FIELD_ON_SAME_KEY, true),
    ("data-key-maintain", "kms:ReEncryptTo", KEY, FIELD_ON_SAME_KEY, true),
    ("data-key-maintain", "kms:ReEncryptTo", KEY, FIELD, false),
    ("data-key-maintain", "kms:ReEncryptTo", BUCKET_KEY, FIELD_ON_SAME_KEY, false),
    ("data-key-encrypt", "kms:ReEncryptTo", KEY, FIELD_ON_SAME_KEY, false),
    ("data-key-decrypt", "kms:ReEncryptFrom", KEY, FIELD_ON_SAME_KEY, false),
    ("object-events", "s3:GetObject", OBJECT, &[], true),
    ("object-events", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("object-events", "s3:GetObjectVersion", OBJECT, &[], true),
    ("object-events", "s3:PutObject", OBJECT, &[], false),
    ("object-events", "s3:DeleteObject", OBJECT, &[], false),
    ("object-events", "s3:DeleteObjectVersion", OBJECT, &[], true),
    ("object-events", "s3:AbortMultipartUpload", OBJECT, &[], true),
    ("object-events", "s3:ListMultipartUploadParts", OBJECT, &[], false),
    ("upload", "s3:AbortMultipartUpload", OBJECT, &[], false),
    ("object-events", "s3:DeleteObjectVersion", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("upload", "s3:DeleteObjectVersion", OBJECT, &[], false),
    ("object-events", "s3:GetObjectVersion", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("object-events", "kms:Decrypt", BUCKET_KEY, VIA_S3, true),
    ("object-events", "kms:Decrypt", BUCKET_KEY, VIA_S3_WITH_BUCKET_KEY, true),
    ("object-events", "kms:Decrypt", BUCKET_KEY, VIA_S3_OF_ANOTHER_BUCKET, false),
    ("object-events", "kms:Decrypt", BUCKET_KEY, &[], false),
    ("trust", "kms:CreateKey", "*", NEW_KEY, true),
    ("trust", "kms:CreateKey", "*", NEW_DATA_KEY, false),
    ("trust", "kms:CreateKey", "*", NEW_KEY_MORE_TAGS, false),
    ("trust", "kms:CreateKey", "*", &[("kms:KeyUsage", "SIGN_VERIFY"), ("kms:KeySpec", "RSA_2048")], false),
    ("trust", "kms:TagResource", SIGNING_KEY, NEW_KEY, true),
    ("trust", "kms:TagResource", KEY, NEW_DATA_KEY, false),
    ("trust", "kms:GetPublicKey", SIGNING_KEY, &[("aws:ResourceTag/portcullis:signing", "test")], true),
    ("trust", "kms:GetPublicKey", SIGNING_KEY, &[], false),
    ("trust", "kms:Sign", SIGNING_KEY, SIGN, false),
    ("trust", "kms:ScheduleKeyDeletion", SIGNING_KEY, SIGN, false),
    ("trust", "s3:PutObject", "arn:aws:s3:::trust/trust/keys.json", &[], true),
    ("trust", "s3:PutObject", "arn:aws:s3:::trust/trust/issuers/x.json", &[], false),
    ("trust", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/admin/1", &[], false),
    ("trust", "s3:ListBucket", "arn:aws:s3:::trust", &[], true),
    ("trust", "s3:ListBucket", "arn:aws:s3:::objects", &[], false),
    ("trust", "s3:DeleteObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("issuer-keys", "s3:GetObject", "arn:aws:s3:::trust/trust/profiles.json", &[], true),
    ("issuer-keys", "s3:GetObject", "arn:aws:s3:::trust/trust/issuers/x.json", &[], true),
    ("issuer-keys", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("issuer-keys", "s3:PutObject", "arn:aws:s3:::trust/trust/issuers/x.json", &[], true),
    ("issuer-keys", "s3:PutObject", "arn:aws:s3:::trust/trust/profiles.json", &[], false),
    ("issuer-keys", "s3:PutObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    ("issuer-keys", "s3:PutObject", "arn:aws:s3:::trust/trust/policies.json", &[], false),
    ("issuer-keys", "s3:DeleteObject", "arn:aws:s3:::trust/trust/issuers/x.json", &[], false),
    ("issuer-keys", "s3:ListBucket", "arn:aws:s3:::trust", &[], false),
    ("issuer-keys", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/trust", &[], false),
    ("issuer-keys", "kms:Sign", SIGNING_KEY, SIGN, false),
    ("admin", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/admin/1", &[], true),
    ("admin", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/token/1", &[], false),
    ("admin", "s3:PutObject", "arn:aws:s3:::trust/trust/revocations.json", &[], false),
    (
        "data-key-shred",
        "rds-db:connect",
        "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/data_key_shred",
        &[],
        true,
    ),
    (
        "data-key-shred",
        "rds-db:connect",
        "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/data_key_maintain",
        &[],
        false,
    ),
    ("data-key-shred", "kms:Decrypt", KEY, FIELD, false),
    ("data-key-shred", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
    (
        "data-key-maintain",
        "rds-db:connect",
        "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/data_key_shred",
        &[],
        false,
    ),
    ("admin", "kms:Sign", SIGNING_KEY, SIGN, false),
    ("admin", "kms:Decrypt", KEY, FIELD, false),
    ("migrate", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:db-1/portcullis_owner", &[], true),
    ("migrate", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:prx-1/portcullis_owner", &[], false),
    ("migrate", "rds-db:connect", "arn:aws:rds-db:us-east-1:111122223333:dbuser:db-1/token", &[], false),
    ("migrate", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[], false),
];

#[test]
fn each_deployed_role_may_do_its_work_and_nothing_beside_it() {
    let account = deployed();
    for (role, action, resource, pairs, expected) in MATRIX {
        let session = account.session(&format!("portcullis-test-{role}"), "s", None);
        let decision = account.iam.authorize(&session, action, resource, &known(resource, pairs));
        assert_eq!(decision.allowed(), *expected, "{role} {action} {resource} {pairs:?}: {decision:?}");
    }
}

#[test]
fn every_allow_statement_of_the_template_is_needed_by_the_matrix_but_logs_and_databases() {
    let account = deployed();
    for (role, action, resource, pairs, _) in MATRIX {
        let session = account.session(&format!("portcullis-test-{role}"), "s", None);
        account.iam.authorize(&session, action, resource, &known(resource, pairs));
    }
    let unused: Vec<String> = account
        .iam
        .unused()
        .into_iter()
        .filter(|label| {
            let of_aws = ["JoinNetwork", "KeepWhatFailed", "WriteLogs", "WriteTraces"];
            let everywhere = ["ConnectDatabase", "ReadTrust"];
            !of_aws.iter().chain(&everywhere).any(|sid| label.ends_with(&format!("/{sid}")))
        })
        .collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// What only AWS itself asks on `*` (network interfaces, traces), and keys that have no ARN before they exist.
#[test]
fn no_deployed_role_holds_a_right_on_everything_but_where_aws_knows_no_resource() {
    let template = template();
    let mut wild = BTreeSet::new();
    for (role, statement) in statements(&template) {
        let at = format!("{role}/{}", statement["Sid"]);
        let actions = listed(&statement["Action"]);
        assert!(!actions.is_empty() && actions.iter().all(|action| !action.contains('*')), "{at}");
        assert!(statement.get("NotAction").is_none() && statement.get("NotResource").is_none(), "{at}");
        if statement["Effect"] == "Allow" && listed(&statement["Resource"]).iter().any(|one| one == "*") {
            wild.insert(statement["Sid"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(wild, ["CreateSigningKeys", "JoinNetwork", "WriteTraces"].map(str::to_owned).into());
}

/// Actions that code sends nowhere (a database token is signed, never sent), or that AWS sends with the function's role.
const NOT_SENT_BY_CODE: [&str; 4] = ["ec2:", "logs:", "rds-db:", "xray:"];

/// A new right is one statement, and its action one line in the role's OnlyThroughEndpoints: this names what is missing.
#[test]
fn whatever_a_functions_code_asks_of_aws_it_may_ask_through_our_endpoints_only() {
    let template = template();
    for function in &template.deployment().functions {
        let mut sent = BTreeSet::new();
        let (mut bound, mut joins, mut kept) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (_, statement) in statements(&template).into_iter().filter(|(role, _)| *role == function.role_name) {
            let actions = listed(&statement["Action"]);
            match statement["Sid"].as_str().unwrap() {
                "OnlyThroughEndpoints" => {
                    assert_eq!(statement["Effect"], "Deny");
                    assert_eq!(statement["Condition"]["Null"]["lambda:SourceFunctionArn"], "false");
                    let endpoints = listed(&statement["Condition"]["StringNotEquals"]["aws:SourceVpce"]);
                    assert!(
                        endpoints.iter().all(|one| one.starts_with("vpce-")),
                        "{}: {endpoints:?}",
                        function.role_name
                    );
                    bound.extend(actions);
                }
                "JoinNetwork" => joins.extend(actions),
                "NoInterfacesByCode" => {
                    assert_eq!(statement["Effect"], "Deny");
                    assert_eq!(statement["Condition"], json!({"Null": {"lambda:SourceFunctionArn": "false"}}));
                    kept.extend(actions);
                }
                "KeepWhatFailed" => assert_eq!(actions, ["sqs:SendMessage"]),
                // S3 and SSM use these keys in the function's name: no endpoint of ours sees that.
                _ if statement["Condition"]["StringEquals"].get("kms:ViaService").is_some() => {}
                _ => sent
                    .extend(actions.into_iter().filter(|one| !NOT_SENT_BY_CODE.iter().any(|not| one.starts_with(not)))),
            }
        }
        assert_eq!(
            bound.iter().filter(|one| !one.starts_with("ssm:")).collect::<Vec<_>>(),
            sent.iter().collect::<Vec<_>>(),
            "{}",
            function.role_name
        );
        assert_eq!(joins, kept, "{}", function.role_name);
        assert_eq!(joins.len(), 6, "{}", function.role_name);
    }
}

#[test]
fn a_session_of_a_function_is_worth_nothing_outside_our_network() {
    let template = template();
    let roles = &template.deployment().roles;
    let iam = || Iam::new("111122223333", "us-east-1", Clock::system(), roles).unwrap();
    let inside = Account::new(iam().in_network(template.deployment().network.clone()));
    let outside = Account::new(iam());
    for (role, action, resource, pairs) in [
        ("token", "kms:Sign", SIGNING_KEY, SIGN),
        ("token", "s3:PutObject", "arn:aws:s3:::trust/trust-inbox/token/1", &[]),
        ("authorizer", "s3:GetObject", "arn:aws:s3:::trust/trust/keys.json", &[]),
        ("upload", "sts:AssumeRole", "arn:aws:iam::111122223333:role/portcullis-test-upload-signer", &[]),
        ("data-key-decrypt", "kms:Decrypt", KEY, FIELD),
        ("object-events", "s3:DeleteObjectVersion", OBJECT, &[]),
        ("issuer-keys", "s3:PutObject", "arn:aws:s3:::trust/trust/issuers/x.json", &[]),
    ] {
        let name = format!("portcullis-test-{role}");
        let may = |account: &Account, arn: Option<String>, more: Pairs| {
            let known = more.iter().fold(known(resource, pairs), |known, (key, value)| known.with(key, *value));
            account.iam.authorize(&account.session(&name, "s", arn), action, resource, &known).allowed()
        };
        let arn = Some(inside.function_arn(&name));
        assert!(may(&inside, arn.clone(), &[]), "{role} {action}");
        assert!(!may(&outside, arn.clone(), &[]), "{role} {action} from the internet");
        assert!(!may(&outside, arn, &[("aws:SourceVpce", "vpce-of-somebody-else")]), "{role} {action} from elsewhere");
    }
    // What S3 does with a key in the function's name comes through no endpoint, and is allowed all the same.
    let name = "portcullis-test-object-events";
    let session = inside.session(name, "s", Some(inside.function_arn(name)));
    assert!(inside.iam.authorize(&session, "kms:Decrypt", BUCKET_KEY, &known(BUCKET_KEY, VIA_S3)).allowed());
    // Lambda itself, with the same role, may attach the function; its code may not.
    for (arn, expected) in [(None, true), (Some(inside.function_arn(name)), false)] {
        let session = inside.session(name, "s", arn);
        let decision = inside.iam.authorize(&session, "ec2:CreateNetworkInterface", "*", &context(&[]));
        assert_eq!(decision.allowed(), expected);
    }
}

/// All statements of all roles, each with its role's name.
fn statements(template: &Template) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for role in &template.deployment().roles {
        for statement in role.policies.iter().flat_map(|policy| policy["Statement"].as_array().unwrap()) {
            found.push((role.name.clone(), statement.clone()));
        }
    }
    found
}

fn listed(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    }
}
